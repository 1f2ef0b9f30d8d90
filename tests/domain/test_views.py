"""Views of slices, on pictures whose result is worked out by hand."""

import numpy as np
import pytest

from pipeline import params
from pipeline.domain import views
from pipeline.domain.views import View


def picture(rows: list[list[int]]) -> np.ndarray:
    """One slice, the same in all three sequences."""
    return np.repeat(np.array(rows, np.uint8)[None, :, :, None], 3, axis=3)


def brightness(images: np.ndarray) -> np.ndarray:
    """A network to which what is bright is tumour."""
    return images[..., 0].astype(np.float32) / 255


def brighter_to_the_right(images: np.ndarray) -> np.ndarray:
    """A network that is not the same left and right: column x adds x / 100."""
    return brightness(images) + np.arange(images.shape[2], dtype=np.float32) / 100


def smooth() -> np.ndarray:
    """Two slices with a bright spot that is not in the middle."""
    rows, columns = np.mgrid[:48, :32]
    spot = 200 * np.exp(-((rows - 20) ** 2 + (columns - 18) ** 2) / 60)
    return np.repeat(np.stack([spot, spot[::-1]])[..., None], 3, axis=3).round().astype(np.uint8)


def test_a_view_twice_as_large_shows_the_middle_with_what_lies_between():
    found = views.shown(picture([[0, 40, 80, 120]] * 4), View(2, False))
    assert found[0, :, :, 0].tolist() == [[30, 50, 70, 90]] * 4  # at 0.75, 1.25, 1.75, 2.25


def test_a_smaller_view_is_black_where_the_slice_has_ended():
    found = views.shown(picture([[100] * 6] * 6), View(0.5, False))
    assert found[0, 3, :, 0].tolist() == [0, 50, 100, 100, 50, 0]  # at -2.5, -0.5, 1.5, 3.5, ...


def test_a_mirrored_view_swaps_left_and_right_alone():
    images = picture([[1, 2, 3], [4, 5, 6]])
    found = views.shown(images, View(1, True))
    assert np.array_equal(found, images[:, :, ::-1])


def test_one_view_is_what_the_network_says():
    images = smooth()
    assert np.array_equal(views.mean(brightness, images, 1), brightness(images))


@pytest.mark.parametrize("count", range(1, len(views.VIEWS) + 1))
def test_what_was_seen_comes_back_to_its_place_from_every_view(count):
    images = smooth()
    found = views.mean(brightness, images, count)
    assert found.dtype == np.float32
    assert found.shape == (2, 48, 32)
    assert np.abs(found - brightness(images)).max() < 0.02


def test_a_mirrored_view_comes_back_mirrored(monkeypatch):
    monkeypatch.setattr(views, "VIEWS", (View(1, False), View(1, True)))
    found = views.mean(brighter_to_the_right, picture([[0, 0, 51], [0, 0, 0]]), 2)
    assert np.allclose(found, [[[0.01, 0.01, 0.21], [0.01, 0.01, 0.01]]])


def test_a_pixel_outside_of_a_view_is_left_to_the_first(monkeypatch):
    monkeypatch.setattr(views, "VIEWS", (View(1, False), View(3, False)))
    calls = iter([0.2, 0.8])
    found = views.mean(
        lambda images: np.full(images.shape[:3], next(calls), np.float32), smooth(), 2
    )
    assert np.allclose(found[:, :12, :8], 0.2)
    assert np.allclose(found[:, 20:28, 14:18], 0.5)


def test_the_parameters_allow_as_many_views_as_there_are():
    (limit,) = [
        one.le for one in params.Evaluate.model_fields["views"].metadata if hasattr(one, "le")
    ]
    assert limit == len(views.VIEWS)
