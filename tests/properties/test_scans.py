"""A damaged tif costs its own slice at most: it has a row that says why it cannot be read."""

import struct
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st
from making import image, mask

from pipeline.adapters.scans import image_files, patient_files
from pipeline.adapters.storage import csv_files
from properties import kept, mutations
from properties.search import bounded, search

PATIENT = "SITE_XY_1"
SIZE_PX = 12
COMPRESSIONS = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773}


def encode(pixels: np.ndarray, compression: str) -> bytes:
    flags = [cv2.IMWRITE_TIFF_COMPRESSION, COMPRESSIONS[compression]]
    succeeded, buffer = cv2.imencode(".tif", pixels, flags)
    assert succeeded
    return buffer.tobytes()


def good_tifs() -> list[bytes]:
    slice_pixels = image(PATIENT, 1, size_px=SIZE_PX)
    mask_pixels = mask(20, size_px=SIZE_PX)
    encoded = [
        encode(pixels, name) for pixels in (slice_pixels, mask_pixels) for name in COMPRESSIONS
    ]
    other_types = [encode(slice_pixels.astype(kind), "none") for kind in ("uint16", "float32")]
    return [image_files.encode_tif(slice_pixels), *encoded, *other_types]


GOOD = good_tifs()


def directory_positions(tif: bytes) -> list[int]:
    """Return the positions of the header, and of every field of every entry of the directory."""
    (start,) = struct.unpack_from("<I", tif, 4)
    (entries,) = struct.unpack_from("<H", tif, start)
    fields = [start + 2 + 12 * number + at for number in range(entries) for at in (0, 2, 4, 8)]
    return [0, 4, start, *fields, start + 2 + 12 * entries]


@st.composite
def damaged_tifs(draw: st.DrawFn) -> bytes:
    good = draw(st.sampled_from(GOOD))
    return draw(mutations.mutated(good, directory_positions(good)))


def check_is_read_or_named(content: bytes) -> None:
    """Check that a patient with a damaged image, or mask, is described in rows."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, PATIENT)
        folder.mkdir()
        paths = [folder / f"{PATIENT}_{part}.tif" for part in ("1", "1_mask", "2", "2_mask")]
        for path, body in zip(paths, (content, GOOD[5], GOOD[0], content), strict=True):
            path.write_bytes(body)
        with bounded(cpu_seconds=5, mib=400):
            read = patient_files.read_patient(PATIENT, paths, root=Path(root))
        assert [row["slice"] for row in read.rows] == [1, 2]
        for row in read.rows:
            check_row(row)
        check_survives_csv(read.rows, Path(root, "manifest.csv"))
        if read.scan is not None:
            assert read.scan.images.dtype == np.uint8 and read.scan.images.shape[0] == 2
            assert read.scan.masks.shape == read.scan.images.shape[:3]


def check_row(row: patient_files.Row) -> None:
    assert tuple(row) == patient_files.COLUMNS
    faults = patient_files.unreadable_files(row)
    assert ("file" in faults) == (row["height"] is None)
    assert ("mask_file" in faults) == (row["mask_height"] is None)
    assert all(fault.isprintable() and len(fault) < 500 for fault in faults.values()), faults


def check_survives_csv(rows: list[patient_files.Row], path: Path) -> None:
    table = pd.DataFrame(rows, columns=patient_files.COLUMNS)
    csv_files.write_table(path, table)
    back = csv_files.read_table(path)
    assert list(back.columns) == list(table.columns) and len(back) == len(rows)
    assert list(back.mask_values.fillna("")) == [row["mask_values"] or "" for row in rows]


@search("scans", damaged_tifs())
def test_a_damaged_tif_is_read_or_its_fault_is_named(content):
    with kept.failing("scans", content):
        check_is_read_or_named(content)


@kept.replay("scans")
def test_kept_tifs(content):
    check_is_read_or_named(content)


@pytest.mark.parametrize("content", GOOD)
def test_the_undamaged_tifs_have_the_property_too(content):
    check_is_read_or_named(content)
