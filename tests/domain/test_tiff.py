"""Files are written out by hand: header, directories of 12-byte entries, offset of the next."""

import struct

import numpy as np
import pytest

from pipeline.adapters.scans.image_files import encode_tif
from pipeline.domain.tiff import TiffStructure, read_structure


def directory(order: str, width: int, height: int, following: int, kind: int = 3) -> bytes:
    value = "HH" if kind == 3 else "I"
    padded = (0,) if kind == 3 else ()
    entries = b"".join(
        struct.pack(f"{order}HHI{value}", tag, kind, 1, size, *padded)
        for tag, size in ((256, width), (257, height))
    )
    return struct.pack(f"{order}H", 2) + entries + struct.pack(f"{order}I", following)


LENGTH = 2 + 2 * 12 + 4


@pytest.mark.parametrize(("magic", "order"), [(b"II*\0", "<"), (b"MM\0*", ">")])
@pytest.mark.parametrize("kind", [3, 4])
def test_one_page_of_either_byte_order(magic, order, kind):
    content = magic + struct.pack(f"{order}I", 8) + directory(order, 300, 20, 0, kind)
    assert read_structure(content) == TiffStructure(pages=1, width=300, height=20)


def test_every_page_counts_and_the_first_gives_the_size():
    content = (
        b"II*\0" + struct.pack("<I", 8)
        + directory("<", 4, 5, 8 + LENGTH) + directory("<", 6, 7, 0)
    )  # fmt: skip
    assert read_structure(content) == TiffStructure(pages=2, width=4, height=5)


def test_a_slice_as_it_is_written_here_is_one_page():
    content = encode_tif(np.zeros((12, 34, 3), np.uint8))
    assert read_structure(content) == TiffStructure(pages=1, width=34, height=12)


def test_a_directory_that_names_itself_as_the_next_is_a_loop():
    content = b"II*\0" + struct.pack("<I", 8) + directory("<", 4, 5, 8)
    with pytest.raises(ValueError, match="loop"):
        read_structure(content)


@pytest.mark.parametrize("length", [4, 7, 9, 20, 8 + LENGTH - 1])
def test_a_file_that_is_cut_off_is_refused(length):
    content = b"II*\0" + struct.pack("<I", 8) + directory("<", 4, 5, 0)
    with pytest.raises(ValueError, match="cut off"):
        read_structure(content[:length])


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0JFIF", b"\x89PNG\r\n", b"", b"II+\0"])
def test_other_files_are_no_tiff(content):
    with pytest.raises(ValueError, match="no TIFF"):
        read_structure(content)
