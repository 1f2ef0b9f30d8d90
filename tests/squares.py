"""Slices that a small network learns within epochs: in each, a bright square is the tumour."""

import numpy as np

from pipeline.network.training_data import SlicesInMemory


def make(*, patients: list[int], side: int, square: int, last: int) -> SlicesInMemory:
    """Generate one slice per entry of `patients`, its patient's number.

    Args:
        side: of the slices, in pixels.
        square: side of the tumour, in pixels.
        last: the tumour's first row and column are from 1 to `last` - 1.
    """
    rng, count = np.random.default_rng(0), len(patients)
    images = rng.integers(0, 100, (count, side, side, 3), dtype=np.uint8)
    masks = np.zeros((count, side, side), np.uint8)
    for mask, (top, left) in zip(masks, rng.integers(1, last, (count, 2)), strict=True):
        mask[top : top + square, left : left + square] = 255
    images[masks > 0] = 250
    return SlicesInMemory(images, masks, np.array(patients), has_tumour=np.ones(count, bool))
