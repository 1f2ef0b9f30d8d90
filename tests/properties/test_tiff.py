"""Directories of a TIFF file are read in bounded time, wherever their offsets lead."""

import struct

import pytest
from hypothesis import strategies as st

from pipeline.domain.tiff import TiffStructure, read_structure
from properties import kept, mutations
from properties.search import bounded, search

ENTRY_BYTES = 12
SECONDS = 1


def chain(order: str, directories: list[tuple[int, int]], *, step: int, length: int) -> bytes:
    """Return a file of `length` bytes whose directories begin `step` bytes apart.

    Where they overlap, a later one overwrites what it shares with those before.

    Args:
        directories: number of entries of each, and how far behind its usual place the next
            one begins.
    """
    content = bytearray({"<": b"II*\0", ">": b"MM\0*"}[order] + bytes(max(length, 16)))
    offset = 8
    struct.pack_into(f"{order}I", content, 4, offset)
    for entries, shift in directories:
        following = max(offset + step + shift, 0)
        end = offset + 2 + entries * ENTRY_BYTES
        if end + 4 > len(content):
            break
        struct.pack_into(f"{order}H", content, offset, entries)
        for number in range(min(entries, 2)):
            at = offset + 2 + number * ENTRY_BYTES
            struct.pack_into(f"{order}HHII", content, at, 256 + number, 4, 1, 20)
        struct.pack_into(f"{order}I", content, end, following)
        offset = following
    return bytes(content)


def overlapping(entries: int, directories: int) -> bytes:
    """Return directories of so many entries that begin four bytes apart, linked in a chain.

    Args:
        entries: at least a third of `directories`, so that no offset lies on a number of entries.
    """
    end = 2 + entries * ENTRY_BYTES
    content = bytearray(b"II*\0" + struct.pack("<I", 8) + bytes(4 * directories + end + 8))
    for number in range(directories):
        offset = 8 + 4 * number
        struct.pack_into("<H", content, offset, entries)
        struct.pack_into("<I", content, offset + end, offset + 4)
    return bytes(content)


@st.composite
def crafted_files(draw: st.DrawFn) -> bytes:
    directories = st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 3, 50, 65535]), st.integers(-8, 8)), max_size=6
    )
    good = chain(
        draw(st.sampled_from("<>")),
        draw(directories),
        step=draw(st.sampled_from([0, 1, 4, 12, 30, 100, 1000])),
        length=draw(st.sampled_from([0, 30, 500, 5000])),
    )
    return draw(st.one_of(st.just(good), mutations.mutated(good, range(0, 60, 2))))


def check_is_read_or_refused(content: bytes) -> None:
    """Check that a file is read, or refused with one reason, within a second."""
    with bounded(cpu_seconds=SECONDS, mib=100):
        try:
            structure = read_structure(content)
        except ValueError:
            return
    assert isinstance(structure, TiffStructure)
    assert structure.pages >= 0 and structure.width >= 0 and structure.height >= 0


@search("tiff", crafted_files())
def test_crafted_directories_are_read_or_refused(content):
    with kept.failing("tiff", content):
        check_is_read_or_refused(content)


@kept.replay("tiff")
def test_kept_files(content):
    check_is_read_or_refused(content)


@pytest.mark.parametrize("entries", [5000, 65535])
def test_ten_thousand_overlapping_directories_end_within_a_second(entries):
    check_is_read_or_refused(overlapping(entries, 10_000))
