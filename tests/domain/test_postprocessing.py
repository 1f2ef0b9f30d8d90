"""Post-processing, on masks small enough to work out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.domain import intensity, postprocessing


def scan_of(*slices: list[str]) -> np.ndarray:
    """A mask from rows of text; # is tumour."""
    return np.array([[[pixel == "#" for pixel in row] for row in rows] for rows in slices])


def test_a_region_is_connected_to_the_next_slice_even_by_a_corner():
    mask = scan_of(["#...", "....", "..##"], ["....", ".#..", "...."], ["....", "..#.", "...."])
    # The pixel in the second slice connects all others.
    assert postprocessing.largest_region(mask).sum() == 5


def test_only_the_largest_region_remains():
    mask = scan_of(["##..", "....", "...#"], ["##..", "....", "...."])
    expected = scan_of(["##..", "....", "...."], ["##..", "....", "...."])
    assert np.array_equal(postprocessing.largest_region(mask), expected)


def test_regions_are_not_connected_across_an_empty_slice():
    mask = scan_of(["#.", ".."], ["..", ".."], ["##", ".."])
    expected = scan_of(["..", ".."], ["..", ".."], ["##", ".."])
    assert np.array_equal(postprocessing.largest_region(mask), expected)


def test_the_first_of_equal_regions_remains():
    mask = scan_of(["..#", "..."], ["...", "..."], ["#..", "..."])
    assert np.array_equal(np.argwhere(postprocessing.largest_region(mask)), [[0, 0, 2]])


def test_an_empty_mask_stays_empty():
    assert not postprocessing.largest_region(np.zeros((3, 4, 5), bool)).any()


def test_a_full_mask_stays_full():
    assert postprocessing.largest_region(np.ones((3, 4, 5), bool)).all()


def test_a_slice_below_the_smallest_area_is_emptied():
    mask = scan_of(["##.", "#.."], ["##.", "..."], ["...", "..."])
    expected = scan_of(["##.", "#.."], ["...", "..."], ["...", "..."])
    assert np.array_equal(postprocessing.remove_small_areas(mask, 3), expected)
    assert np.array_equal(postprocessing.remove_small_areas(mask, 0), mask)


SLICES = np.zeros((1, 2, 3, 3), np.uint8)
SLICES[0, 0, 2] = 51  # a fifth of 255
PLAIN = postprocessing.PostProcessing(threshold=0.5, views=1, keep="all", min_area_px=0)


def brighter_to_the_right(images: np.ndarray) -> np.ndarray:
    """An asymmetric network: column x adds x / 100 to the brightness."""
    return (images[..., 0] / 255 + np.arange(images.shape[2]) / 100).astype(np.float32)


@pytest.mark.parametrize(("keep", "pixels"), [("all", 3), ("largest", 2)])
def test_a_pixel_at_the_threshold_is_tumour(keep, pixels):
    probability = np.array([[[0.5, 0.6, 0.49, 0.9]]], np.float32)
    segmented = postprocessing.segment_scan(
        lambda images: probability,
        np.zeros((1, 1, 4, 3), np.uint8),
        replace(PLAIN, keep=keep),
        model_name="resunet",
    )
    assert segmented.mask.sum() == pixels
    assert segmented.mask.dtype == bool


def test_the_smallest_area_applies_to_the_largest_region():
    probability = np.array([[[0.9, 0.9, 0.0, 0.9]], [[0.0, 0.0, 0.0, 0.0]]], np.float32)
    post = replace(PLAIN, keep="largest", min_area_px=3)
    segmented = postprocessing.segment_scan(
        lambda images: probability, np.zeros((2, 1, 4, 3), np.uint8), post, model_name="resunet"
    )
    assert not segmented.mask.any()


def test_the_probability_of_a_single_view_is_that_of_the_network():
    segmented = postprocessing.segment_scan(
        brighter_to_the_right, SLICES, PLAIN, model_name="resunet"
    )
    assert np.array_equal(segmented.probability, brighter_to_the_right(SLICES))


def test_a_network_for_scaled_scans_gets_slices_on_the_scale_of_the_whole_scan():
    scan = np.random.default_rng(1).integers(0, 80, (5, 8, 8, 3), dtype=np.uint8)
    scaled = intensity.apply_scale(scan, intensity.estimate_scale(scan))
    segmented = postprocessing.segment_scan(
        brighter_to_the_right, scan, PLAIN, model_name=intensity.MODEL_NAMES["scan"],
        positions=np.array([1, 3]),
    )  # fmt: skip
    assert np.array_equal(segmented.probability, brighter_to_the_right(scaled[[1, 3]]))
