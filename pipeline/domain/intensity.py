"""Brings the brightness of scans to one scale: a scanner's numbers mean nothing by themselves.

S slices, H x W pixels. Each sequence of a scan is shifted and stretched by itself, from the
pixels of the whole scan, so that slices keep their brightness against each other.
"""

from dataclasses import dataclass

import numpy as np

MEAN, SPREAD = 80.0, 40.0  # of the head's pixels afterwards; six spreads above the mean are 255
# What a model wants goes with it, in its name: by `train.intensity`.
NAMES = {"raw": "resunet", "scan": "resunet_for_scaled_scans"}
BACKGROUND = 0.1  # of the brightest pixels: what is darker lies outside of the head


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
    levels = np.arange(256)
    for channel in range(3):
        counts = np.bincount(images[..., channel].ravel(), minlength=256).astype(np.float64)
        bright = levels[np.searchsorted(np.cumsum(counts), 0.995 * counts.sum())]
        counts[levels <= BACKGROUND * bright] = 0
        total = counts.sum()
        if total == 0:
            continue
        mean = (counts * levels).sum() / total
        spread = np.sqrt((counts * (levels - mean) ** 2).sum() / total)
        if spread > 0:
            gain[channel] = SPREAD / spread
            offset[channel] = MEAN - mean * SPREAD / spread
    return Scale(gain, offset)


def fitting(model_name: str, shown: np.ndarray, scan: np.ndarray) -> np.ndarray:
    """Slices (N, H, W, 3) uint8 as a model of that name takes them; `scan` holds all of the scan's."""
    return apply(np.asarray(shown), of_scan(scan)) if model_name == NAMES["scan"] else shown


def apply(images: np.ndarray, scale: Scale) -> np.ndarray:
    """Slices (..., H, W, 3) uint8 on that scale, cut to 0 to 255, uint8."""
    levels = np.arange(256, dtype=np.float32)[:, None]
    table = np.clip(np.rint(levels * scale.gain + scale.offset), 0, 255).astype(np.uint8)
    return np.stack([table[images[..., channel], channel] for channel in range(3)], axis=-1)
