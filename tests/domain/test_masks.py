"""Masks of scans: small ones that can be drawn by hand."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.domain import intensity, masks


def scan_of(*slices: list[str]) -> np.ndarray:
    """A mask from rows of text; # is tumour."""
    return np.array([[[pixel == "#" for pixel in row] for row in one] for one in slices])


def test_a_region_goes_on_in_the_next_slice_also_by_a_corner():
    mask = scan_of(["#...", "....", "..##"], ["....", ".#..", "...."], ["....", "..#.", "...."])
    assert masks.largest_region(mask).sum() == 5  # all of it hangs together through slice 2


def test_only_the_largest_region_stays():
    mask = scan_of(["##..", "....", "...#"], ["##..", "....", "...."])
    expected = scan_of(["##..", "....", "...."], ["##..", "....", "...."])
    assert np.array_equal(masks.largest_region(mask), expected)


def test_a_region_is_not_joined_over_an_empty_slice():
    mask = scan_of(["#.", ".."], ["..", ".."], ["##", ".."])
    expected = scan_of(["..", ".."], ["..", ".."], ["##", ".."])
    assert np.array_equal(masks.largest_region(mask), expected)


def test_of_equal_regions_the_first_stays():
    mask = scan_of(["..#", "..."], ["...", "..."], ["#..", "..."])
    assert np.array_equal(np.argwhere(masks.largest_region(mask)), [[0, 0, 2]])


def test_an_empty_mask_stays_empty():
    assert not masks.largest_region(np.zeros((3, 4, 5), bool)).any()


def test_a_full_mask_stays_full():
    assert masks.largest_region(np.ones((3, 4, 5), bool)).all()


def test_a_slice_with_fewer_pixels_than_the_smallest_area_has_none():
    mask = scan_of(["##.", "#.."], ["##.", "..."], ["...", "..."])
    expected = scan_of(["##.", "#.."], ["...", "..."], ["...", "..."])
    assert np.array_equal(masks.without_small_areas(mask, 3), expected)
    assert np.array_equal(masks.without_small_areas(mask, 0), mask)


SLICES = np.zeros((1, 2, 3, 3), np.uint8)
SLICES[0, 0, 2] = 51  # a fifth of 255
PLAIN = masks.Rule(threshold=0.5, views=1, keep="all", min_area_px=0)


def brighter_to_the_right(images: np.ndarray) -> np.ndarray:
    """A network that is not the same left and right: column x adds x / 100."""
    return (images[..., 0] / 255 + np.arange(images.shape[2]) / 100).astype(np.float32)


@pytest.mark.parametrize(("keep", "pixels"), [("all", 3), ("largest", 2)])
def test_a_pixel_at_the_threshold_is_tumour(keep, pixels):
    probability = np.array([[[0.5, 0.6, 0.49, 0.9]]], np.float32)
    found = masks.of_scan(
        lambda images: probability,
        np.zeros((1, 1, 4, 3), np.uint8),
        replace(PLAIN, keep=keep),
        model_name="resunet",
    )
    assert found.mask.sum() == pixels
    assert found.mask.dtype == bool


def test_the_smallest_area_is_asked_of_what_the_largest_region_leaves():
    probability = np.array([[[0.9, 0.9, 0.0, 0.9]], [[0.0, 0.0, 0.0, 0.0]]], np.float32)
    rule = replace(PLAIN, keep="largest", min_area_px=3)
    found = masks.of_scan(
        lambda images: probability, np.zeros((2, 1, 4, 3), np.uint8), rule, model_name="resunet"
    )
    assert not found.mask.any()


def test_with_one_view_the_network_is_asked_once():
    found = masks.of_scan(brighter_to_the_right, SLICES, PLAIN, model_name="resunet")
    assert np.array_equal(found.probability, brighter_to_the_right(SLICES))


def test_a_network_for_scaled_scans_gets_the_slices_on_the_scale_of_the_whole_scan():
    scan = np.random.default_rng(1).integers(0, 80, (5, 8, 8, 3), dtype=np.uint8)
    scaled = intensity.apply(scan, intensity.of_scan(scan))
    found = masks.of_scan(
        brighter_to_the_right, scan, PLAIN, model_name=intensity.NAMES["scan"],
        positions=np.array([1, 3]),
    )  # fmt: skip
    assert np.array_equal(found.probability, brighter_to_the_right(scaled[[1, 3]]))
