"""Views of slices, on images whose views are worked out by hand."""

import numpy as np
import pytest

from pipeline import params
from pipeline.domain import test_time_augmentation
from pipeline.domain.test_time_augmentation import View


def slice_of(rows: list[list[int]]) -> np.ndarray:
    """One slice, the same in all three sequences."""
    return np.repeat(np.array(rows, np.uint8)[None, :, :, None], 3, axis=3)


def brightness(images: np.ndarray) -> np.ndarray:
    """A network whose probability is the brightness of the first sequence."""
    return images[..., 0].astype(np.float32) / 255


def brighter_to_the_right(images: np.ndarray) -> np.ndarray:
    """An asymmetric network: column x adds x / 100 to the brightness."""
    return brightness(images) + np.arange(images.shape[2], dtype=np.float32) / 100


def off_centre_spots() -> np.ndarray:
    """Two slices, each with a bright spot away from the centre; (2, 48, 32, 3) uint8."""
    rows, columns = np.mgrid[:48, :32]
    spot = 200 * np.exp(-((rows - 20) ** 2 + (columns - 18) ** 2) / 60)
    return np.repeat(np.stack([spot, spot[::-1]])[..., None], 3, axis=3).round().astype(np.uint8)


def test_a_view_at_twice_the_size_shows_the_centre_interpolated():
    view = test_time_augmentation.transform(slice_of([[0, 40, 80, 120]] * 4), View(2, False))
    assert view[0, :, :, 0].tolist() == [[30, 50, 70, 90]] * 4  # at 0.75, 1.25, 1.75, 2.25


def test_a_smaller_view_is_black_outside_the_slice():
    view = test_time_augmentation.transform(slice_of([[100] * 6] * 6), View(0.5, False))
    assert view[0, 3, :, 0].tolist() == [0, 50, 100, 100, 50, 0]  # at -2.5, -0.5, 1.5, 3.5, ...


def test_a_mirrored_view_swaps_left_and_right_only():
    images = slice_of([[1, 2, 3], [4, 5, 6]])
    view = test_time_augmentation.transform(images, View(1, True))
    assert np.array_equal(view, images[:, :, ::-1])


def test_the_mean_of_a_single_view_is_the_prediction_of_the_network():
    images = off_centre_spots()
    assert np.array_equal(
        test_time_augmentation.average_views(brightness, images, 1), brightness(images)
    )


@pytest.mark.parametrize("count", range(1, len(test_time_augmentation.VIEWS) + 1))
def test_predictions_of_every_view_are_mapped_back_to_their_place(count):
    images = off_centre_spots()
    mean = test_time_augmentation.average_views(brightness, images, count)
    assert mean.dtype == np.float32
    assert mean.shape == (2, 48, 32)
    assert np.abs(mean - brightness(images)).max() < 0.02


def test_the_prediction_of_a_mirrored_view_is_mirrored_back(monkeypatch):
    monkeypatch.setattr(test_time_augmentation, "VIEWS", (View(1, False), View(1, True)))
    mean = test_time_augmentation.average_views(
        brighter_to_the_right, slice_of([[0, 0, 51], [0, 0, 0]]), 2
    )
    assert np.allclose(mean, [[[0.01, 0.01, 0.21], [0.01, 0.01, 0.01]]])


def test_a_pixel_outside_a_view_is_averaged_over_the_other_views(monkeypatch):
    monkeypatch.setattr(test_time_augmentation, "VIEWS", (View(1, False), View(3, False)))
    predictions = iter([0.2, 0.8])
    mean = test_time_augmentation.average_views(
        lambda images: np.full(images.shape[:3], next(predictions), np.float32),
        off_centre_spots(),
        2,
    )
    assert np.allclose(mean[:, :12, :8], 0.2)
    assert np.allclose(mean[:, 20:28, 14:18], 0.5)


def test_the_parameters_allow_as_many_views_as_there_are():
    constraints = params.Evaluate.model_fields["views"].metadata
    (limit,) = [constraint.le for constraint in constraints if hasattr(constraint, "le")]
    assert limit == len(test_time_augmentation.VIEWS)
