"""The views of a slice that a network is asked about: as it is, mirrored, smaller, larger.

The mean of what a network says about several is better than what it says about one: it errs at
another place of the outline in each, and sees more of it where the slice is larger. S slices,
H x W pixels. Does not know networks: what predicts is handed in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np

Predictor = Callable[[np.ndarray], np.ndarray]  # (S, H, W, 3) uint8 to (S, H, W) probability


@dataclass(frozen=True)
class View:
    """A slice `zoom` times as large around its middle, mirrored left for right or not."""

    zoom: float
    mirrored: bool


# In the order in which they are asked about; which ones was chosen by cross-validation.
VIEWS = (View(1, False), View(0.9, True), View(1.2, False), View(1.3, True))


def mean(predict: Predictor, images: np.ndarray, count: int) -> np.ndarray:
    """The mean probability over the first views of `VIEWS`.

    A pixel that lies outside of a view is left to the others; it is in the first of them.

    Args:
        images: (S, H, W, 3) uint8.
        count: how many views, from 1 (the slices as they are) to 4.

    Returns:
        (S, H, W) float32 in [0, 1].
    """
    if count == 1:
        return predict(images)
    height, width = images.shape[1:3]
    total, seen = np.zeros(images.shape[:3], np.float32), np.zeros((height, width), np.float32)
    for view in islice(VIEWS, count):
        rows, columns = (_sampling(side, 1 / view.zoom) for side in (height, width))
        found = rows @ predict(shown(images, view)) @ columns.T
        total += found[:, :, ::-1] if view.mirrored else found
        seen += np.outer(rows.sum(axis=1), columns.sum(axis=1))
    return total / seen


def shown(images: np.ndarray, view: View) -> np.ndarray:
    """Slices as a view shows them, interpolated linearly.

    Args:
        images: (S, H, W, 3) uint8.

    Returns:
        (S, H, W, 3) uint8.
    """
    height, width = images.shape[1:3]
    planes = np.moveaxis(images, -1, 1).astype(np.float32)
    larger = _sampling(height, view.zoom) @ planes @ _sampling(width, view.zoom).T
    pixels: np.ndarray = np.moveaxis(larger, 1, -1).round().astype(np.uint8)
    return pixels[:, :, ::-1] if view.mirrored else pixels


def _sampling(side: int, zoom: float) -> np.ndarray:
    """What each pixel of a row shows of the row when that gets larger: (side, side) float32.

    A line a pixel: the shares of the two pixels nearest to the place that it shows; less than 1
    together where that lies outside.
    """
    middle = (side - 1) / 2
    places = (np.arange(side) - middle) / zoom + middle
    shares: np.ndarray = np.maximum(1 - np.abs(places[:, None] - np.arange(side)), 0)
    return shares.astype(np.float32)
