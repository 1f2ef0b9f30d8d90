"""Read the structure of a TIFF file from its bytes, without decoding pixels.

Image libraries decode the first page of whatever they recognise: a second page, or a JPEG
named .tif, would pass unnoticed, and a header may claim more pixels than memory holds. This
module reads the directories alone. BigTIFF is not supported.

Source: TIFF revision 6.0, Adobe 1992, sections 2 and 8.
"""

import struct
from dataclasses import dataclass

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
    (first,) = struct.unpack_from(f"{order}I", content, 4)
    offset = first
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) >= MAX_PAGES:
            raise ValueError("its TIFF directories form a loop")
        seen.add(offset)
        offset = _next_directory(content, order, offset)
    # Entries are read in one directory only. Overlapping ones can repeat the same bytes as
    # hundreds of millions of entries.
    sizes = _read_sizes(content, order, first) if first else {}
    return TiffStructure(len(seen), sizes.get(WIDTH, 0), sizes.get(HEIGHT, 0))


def _next_directory(content: bytes, order: str, offset: int) -> int:
    """Return the offset of the directory after the one at `offset`; 0: none."""
    (entries,) = struct.unpack_from(f"{order}H", content, offset)
    (following,) = struct.unpack_from(f"{order}I", content, offset + 2 + entries * ENTRY_BYTES)
    return int(following)


def _read_sizes(content: bytes, order: str, offset: int) -> dict[int, int]:
    """Return width and height, by tag, of the directory at `offset`."""
    (entries,) = struct.unpack_from(f"{order}H", content, offset)
    sizes: dict[int, int] = {}
    for number in range(entries):
        entry = offset + 2 + number * ENTRY_BYTES
        tag, kind = struct.unpack_from(f"{order}HH", content, entry)
        if tag in (WIDTH, HEIGHT) and kind in VALUE_FORMATS:
            (sizes[tag],) = struct.unpack_from(f"{order}{VALUE_FORMATS[kind]}", content, entry + 8)
    return sizes
