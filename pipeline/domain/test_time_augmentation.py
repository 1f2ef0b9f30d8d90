"""Test-time augmentation: average the predictions for mirrored and scaled views of a slice.

The mean over views is better than any single prediction. A network errs at a different place of
the outline in each view, and sees more detail in an enlarged one. S slices, H x W pixels. Does
not know networks: callers pass the function that predicts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np

Predictor = Callable[[np.ndarray], np.ndarray]  # (S, H, W, 3) uint8 to (S, H, W) probability


@dataclass(frozen=True)
class View:
    """A copy of a slice, enlarged `zoom` times around its centre and possibly mirrored.

    zoom: above 0; below 1 shrinks the slice.
    mirrored: left and right are swapped.
    """

    zoom: float
    mirrored: bool


# The first `views` of these are averaged, in this order. Cross-validation selected them.
VIEWS = (View(1, False), View(0.9, True), View(1.2, False), View(1.3, True))


def average_views(predict: Predictor, images: np.ndarray, count: int) -> np.ndarray:
    """Return the mean probability over the first `count` views of `VIEWS`.

    A pixel outside a view is averaged over the other views; the first view has every pixel.

    Args:
        images: (S, H, W, 3) uint8.
        count: number of views, from 1 (the unchanged slices) to 4.

    Returns:
        (S, H, W) float32 in [0, 1].
    """
    if count == 1:
        return predict(images)
    height, width = images.shape[1:3]
    total, weight = np.zeros(images.shape[:3], np.float32), np.zeros((height, width), np.float32)
    for view in islice(VIEWS, count):
        rows, columns = (_interpolation(side, 1 / view.zoom) for side in (height, width))
        probability = rows @ predict(transform(images, view)) @ columns.T
        total += probability[:, :, ::-1] if view.mirrored else probability
        weight += np.outer(rows.sum(axis=1), columns.sum(axis=1))
    return total / weight


def transform(images: np.ndarray, view: View) -> np.ndarray:
    """Return a view of slices, interpolated linearly; black where a slice has ended.

    Args:
        images: (S, H, W, 3) uint8.

    Returns:
        (S, H, W, 3) uint8.
    """
    height, width = images.shape[1:3]
    planes = np.moveaxis(images, -1, 1).astype(np.float32)
    scaled = _interpolation(height, view.zoom) @ planes @ _interpolation(width, view.zoom).T
    pixels: np.ndarray = np.moveaxis(scaled, 1, -1).round().astype(np.uint8)
    return pixels[:, :, ::-1] if view.mirrored else pixels


def _interpolation(side: int, zoom: float) -> np.ndarray:
    """Return the matrix that scales a row of pixels around its centre, with linear interpolation.

    Returns:
        (side, side) float32. Row i holds the weights of the two source pixels nearest to the
        position of pixel i. They sum to less than 1 if that position is outside the source.
    """
    centre = (side - 1) / 2
    positions = (np.arange(side) - centre) / zoom + centre
    weights: np.ndarray = np.maximum(1 - np.abs(positions[:, None] - np.arange(side)), 0)
    return weights.astype(np.float32)
