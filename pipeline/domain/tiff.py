"""Read the structure of a TIFF file from its bytes, without decoding pixels.

Image libraries decode the first page of whatever they recognise: a second page, or a JPEG
named .tif, would pass unnoticed, and a header may claim more pixels than memory holds. This
module reads the directories alone. BigTIFF is not supported.

Source: TIFF revision 6.0, Adobe 1992, sections 2 and 8.
"""

import struct
from dataclasses import dataclass
from itertools import count

BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
WIDTH, HEIGHT = 256, 257  # tags ImageWidth and ImageLength
VALUE_FORMATS = {1: "B", 3: "H", 4: "I"}  # types BYTE, SHORT and LONG
ENTRY_BYTES = 12
MAX_PAGES = 10_000  # a chain of directories that is longer is a loop, or an attack


@dataclass(frozen=True)
class TiffStructure:
    """pages: number of image directories. width, height: of the first page, in pixels."""

    pages: int
    width: int
    height: int


def read_structure(content: bytes) -> TiffStructure:
    """Read how many pages a TIFF file has, and the size of the first.

    Raises:
        ValueError: the file is no TIFF, is cut off, or its directories form a loop; in a few
            words.
    """
    order = BYTE_ORDERS.get(content[:4])
    if order is None:
        raise ValueError(f"it is no TIFF file (it begins with {content[:4]!r})")
    try:
        return _read_directories(content, order)
    except struct.error as error:
        raise ValueError("its TIFF directory is cut off") from error


def _read_directories(content: bytes, order: str) -> TiffStructure:
    (offset,) = struct.unpack_from(f"{order}I", content, 4)
    sizes: dict[int, int] = {}
    seen: set[int] = set()
    for pages in count():
        if offset == 0:
            return TiffStructure(pages, sizes.get(WIDTH, 0), sizes.get(HEIGHT, 0))
        if offset in seen or pages >= MAX_PAGES:
            raise ValueError("its TIFF directories form a loop")
        seen.add(offset)
        tags, offset = _read_directory(content, order, offset)
        sizes = sizes or tags
    raise AssertionError("unreachable: the loop returns or raises")


def _read_directory(content: bytes, order: str, offset: int) -> tuple[dict[int, int], int]:
    """Return width and height by tag, and the offset of the next directory; 0: none."""
    (entries,) = struct.unpack_from(f"{order}H", content, offset)
    tags: dict[int, int] = {}
    for number in range(entries):
        entry = offset + 2 + number * ENTRY_BYTES
        tag, kind = struct.unpack_from(f"{order}HH", content, entry)
        if tag in (WIDTH, HEIGHT) and kind in VALUE_FORMATS:
            (tags[tag],) = struct.unpack_from(f"{order}{VALUE_FORMATS[kind]}", content, entry + 8)
    (following,) = struct.unpack_from(f"{order}I", content, offset + 2 + entries * ENTRY_BYTES)
    return tags, following
