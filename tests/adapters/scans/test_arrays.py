import numpy as np
import pytest

from pipeline.adapters.scans import arrays
from pipeline.adapters.scans.arrays import Scan
from pipeline.errors import GliaflowError


def a_scan(slices: int, *, first: int = 0) -> Scan:
    """Slices of 4 x 4 pixels: slice s has every pixel at first + s, and its top left is tumour."""
    levels = np.arange(first, first + slices, dtype=np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (slices, 4, 4, 3)).copy()
    masks = np.zeros((slices, 4, 4), np.uint8)
    masks[:, 0, 0] = 1
    return Scan(images, masks)


def test_a_scan_round_trips_and_is_memory_mapped(tmp_path):
    arrays.save(tmp_path, "P", a_scan(3))
    read = arrays.open_scan(tmp_path, "P")
    assert isinstance(read.images, np.memmap)
    assert isinstance(read.masks, np.memmap)
    assert np.array_equal(read.images, a_scan(3).images)
    assert np.array_equal(read.masks, a_scan(3).masks)
    assert (read.images.dtype, read.masks.dtype) == (np.uint8, np.uint8)


def test_a_mapped_scan_cannot_be_written_to(tmp_path):
    arrays.save(tmp_path, "P", a_scan(1))
    with pytest.raises(ValueError, match="read-only"):
        arrays.open_scan(tmp_path, "P").images[0] = 1


def test_saving_again_replaces_the_scan(tmp_path):
    arrays.save(tmp_path, "P", a_scan(3))
    arrays.save(tmp_path, "P", a_scan(2, first=9))
    assert np.array_equal(arrays.open_scan(tmp_path, "P").images, a_scan(2, first=9).images)


def test_missing_arrays_are_an_error_that_says_what_builds_them(tmp_path):
    with pytest.raises(GliaflowError, match=r"nobody holds no readable arrays .*dvc repro ingest"):
        arrays.open_scan(tmp_path, "nobody")


@pytest.mark.parametrize("end", [0, 7, 100, -1])
@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
def test_a_truncated_array_is_an_error(tmp_path, name, end):
    arrays.save(tmp_path, "P", a_scan(3))
    path = tmp_path / "P" / name
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(GliaflowError, match=r"P holds no readable arrays"):
        arrays.open_scan(tmp_path, "P")


def test_images_shrink_to_the_mean_of_each_block():
    plane = np.array([[0, 10, 1, 1], [20, 30, 1, 2], [0, 0, 255, 255], [0, 1, 255, 255]], np.uint8)
    small = arrays.shrink_images(np.stack([plane, plane, plane * 0], -1)[None], 2)
    # 60 / 4 = 15; 5 / 4 = 1.25; 1 / 4 = 0.25; 255.
    assert small[0, ..., 0].tolist() == [[15, 1], [0, 255]]
    assert small[0, ..., 2].tolist() == [[0, 0], [0, 0]]
    assert (small.shape, small.dtype) == ((1, 2, 2, 3), np.uint8)


def test_masks_shrink_to_the_share_of_tumour_times_255():
    mask = np.array([[1, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], np.uint8)
    small = arrays.shrink_masks(mask[None], 2)
    # 1/4 of 255 is 63.75; 2/4 is 127.5, which rounds to the even 128.
    assert small.tolist() == [[[64, 255], [128, 0]]]
    assert small.dtype == np.uint8


def test_rows_and_columns_are_not_swapped():
    images = np.zeros((1, 2, 4, 3), np.uint8)
    images[0, :, 2:] = 100
    assert arrays.shrink_images(images, 2)[0, ..., 0].tolist() == [[0, 100]]


def test_factor_one_keeps_every_pixel():
    scan = a_scan(2, first=5)
    assert np.array_equal(arrays.shrink_images(scan.images, 1), scan.images)
    assert np.array_equal(arrays.shrink_masks(scan.masks, 1), scan.masks * 255)


def test_chosen_slices_are_loaded_in_order_with_the_index_of_their_patient(tmp_path):
    arrays.save(tmp_path, "A", a_scan(3))
    arrays.save(tmp_path, "B", a_scan(2, first=100))
    chosen = [("B", np.array([1])), ("A", np.array([0, 2]))]
    images, masks, patients = arrays.load_slices(tmp_path, chosen, factor=2)
    assert images[:, 0, 0, 0].tolist() == [101, 0, 2]
    assert images.shape == (3, 2, 2, 3)
    assert masks.tolist() == [[[64, 0], [0, 0]]] * 3
    assert patients.tolist() == [0, 1, 1]
