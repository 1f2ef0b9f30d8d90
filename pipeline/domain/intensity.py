"""Brings the brightness of scans to one scale: a scanner's numbers mean nothing by themselves.

S slices, H x W pixels. Each sequence of a scan is shifted and stretched by itself, from the
pixels deep inside the head in the whole scan: slices keep their brightness against each other, and
the scalp, whose fat is brighter than anything else in some scans and dark in others, has no say.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]  # it brings no types

MEAN, SPREAD = 80.0, 40.0  # of the pixels inside afterwards; 4.4 spreads above the mean are 255
# What a model wants goes with it, in its name: by `train.intensity`.
NAMES = {"raw": "resunet", "scan": "resunet_for_scaled_scans"}
DARK = 0.06  # of the brightest pixels: what is darker lies outside of the head
LOOKED_AT = 64  # rows and columns at most, evenly spread: enough for a mean
DEPTH = 0.1  # of the image's side: how far inside the head brain begins
CROSS = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)  # in a slice, not to the next


@dataclass(frozen=True)
class Scale:
    """gain, offset: (3,) float32; a pixel x becomes gain * x + offset."""

    gain: np.ndarray
    offset: np.ndarray


def of_scan(images: np.ndarray) -> Scale:
    """The scale that gives each sequence of a scan the mean and spread above.

    Args:
        images: (S, H, W, 3) uint8, all slices of one scan.

    Returns:
        gain 1 and offset 0 for a sequence that is black or of one brightness throughout.
    """
    gain, offset = np.ones(3, np.float32), np.zeros(3, np.float32)
    step = max(images.shape[1] // LOOKED_AT, 1)
    few = np.asarray(images[:, ::step, ::step])
    region = inside(few)
    if not region.any():
        region = few.max(axis=-1) > 0
    for channel in range(3):
        pixels = few[..., channel][region].astype(np.float64)
        if pixels.size and pixels.std() > 0:
            gain[channel] = SPREAD / pixels.std()
            offset[channel] = MEAN - pixels.mean() * gain[channel]
    return Scale(gain, offset)


def inside(images: np.ndarray) -> np.ndarray:
    """Pixels so deep in the head that they are brain, skull base or tumour: (S, H, W) bool.

    Args:
        images: (S, H, W, 3) uint8.
    """
    bright = images.max(axis=-1)
    shown = bright[bright > 0]
    if not shown.size:
        return np.zeros(bright.shape, bool)
    head = bright > DARK * np.percentile(shown, 99)
    head = ndimage.binary_fill_holes(ndimage.binary_opening(head, CROSS), CROSS)
    deep: np.ndarray = ndimage.binary_erosion(head, CROSS, round(DEPTH * images.shape[1]))
    return deep


def fitting(model_name: str, shown: np.ndarray, scan: np.ndarray) -> np.ndarray:
    """Slices (N, H, W, 3) uint8 as a model of that name takes them; `scan` holds all of the scan's."""
    return apply(np.asarray(shown), of_scan(scan)) if model_name == NAMES["scan"] else shown


def apply(images: np.ndarray, scale: Scale) -> np.ndarray:
    """Slices (..., H, W, 3) uint8 on that scale, cut to 0 to 255, uint8."""
    levels = np.arange(256, dtype=np.float32)[:, None]
    table = np.clip(np.rint(levels * scale.gain + scale.offset), 0, 255).astype(np.uint8)
    return np.stack([table[images[..., channel], channel] for channel in range(3)], axis=-1)
