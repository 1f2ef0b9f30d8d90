"""Normalise the intensities of scans, since a scanner's numbers have no fixed scale.

S slices, H x W pixels, 3 sequences. Each sequence of a scan is scaled linearly, by the pixels
deep inside the head in all slices of the scan. So slices keep their brightness relative to each
other. The scalp is left out: its fat is the brightest tissue in some scans and dark in others.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# Mean and standard deviation of the brain region after scaling; 255 is 4.4 deviations above.
TARGET_MEAN, TARGET_STD = 80.0, 40.0
# Name of a model by `train.intensity`: it says which scale of intensities the model expects.
MODEL_NAMES = {"raw": "resunet", "scan": "resunet_for_scaled_scans"}
HEAD_THRESHOLD = 0.06  # share of the brightest pixels; anything darker lies outside the head
SAMPLED_SIDE_PX = 64  # about as many rows and columns, evenly spaced, are enough to estimate by
BRAIN_DEPTH = 0.1  # share of the image side from the outline of the head to the brain region
# The four neighbours of a pixel in its slice, none in other slices.
IN_SLICE_NEIGHBOURS = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)


@dataclass(frozen=True)
class Scale:
    """A linear scale for each sequence: a pixel x becomes gain * x + offset.

    gain, offset: (3,) float32.
    """

    gain: np.ndarray
    offset: np.ndarray


def estimate_scale(images: np.ndarray) -> Scale:
    """Estimate the scale that brings each sequence of a scan to the target mean and deviation.

    Args:
        images: (S, H, W, 3) uint8, all slices of one scan.

    Returns:
        gain 1 and offset 0 for a sequence that is black or uniform. A scan without a brain
        region is scaled by all of its pixels that are not black.
    """
    gain, offset = np.ones(3, np.float32), np.zeros(3, np.float32)
    step = max(images.shape[1] // SAMPLED_SIDE_PX, 1)
    sampled = np.asarray(images[:, ::step, ::step])
    region = brain_region(sampled)
    if not region.any():
        region = sampled.max(axis=-1) > 0
    for channel in range(3):
        pixels = sampled[..., channel][region].astype(np.float64)
        if pixels.size and pixels.std() > 0:
            gain[channel] = TARGET_STD / pixels.std()
            offset[channel] = TARGET_MEAN - pixels.mean() * gain[channel]
    return Scale(gain, offset)


def brain_region(images: np.ndarray) -> np.ndarray:
    """Return the pixels deep enough in the head to be brain, skull base or tumour.

    Args:
        images: (S, H, W, 3) uint8.

    Returns:
        (S, H, W) bool; all False for black images, or if no part of the head is deep enough.
    """
    brightest = images.max(axis=-1)
    nonzero = brightest[brightest > 0]
    if not nonzero.size:
        return np.zeros(brightest.shape, bool)
    head = brightest > HEAD_THRESHOLD * np.percentile(nonzero, 99)
    head = ndimage.binary_opening(head, IN_SLICE_NEIGHBOURS)
    head = ndimage.binary_fill_holes(head, IN_SLICE_NEIGHBOURS)
    depth_px = round(BRAIN_DEPTH * images.shape[1])
    region: np.ndarray = ndimage.binary_erosion(head, IN_SLICE_NEIGHBOURS, depth_px)
    return region


def scale_for_model(model_name: str, slices: np.ndarray, scan: np.ndarray) -> np.ndarray:
    """Return slices on the scale of intensities that a model expects.

    Args:
        model_name: a value of `MODEL_NAMES`.
        slices: (N, H, W, 3) uint8, some or all slices of the scan.
        scan: (S, H, W, 3) uint8, all slices of the scan; the scale is estimated from these.

    Returns:
        (N, H, W, 3) uint8; `slices` unchanged for a model that expects raw intensities.
    """
    if model_name != MODEL_NAMES["scan"]:
        return slices
    return apply_scale(np.asarray(slices), estimate_scale(scan))


def apply_scale(images: np.ndarray, scale: Scale) -> np.ndarray:
    """Return (..., H, W, 3) uint8 slices on a scale, clipped to 0 to 255, as uint8."""
    levels = np.arange(256, dtype=np.float32)[:, None]
    table = np.clip(np.rint(levels * scale.gain + scale.offset), 0, 255).astype(np.uint8)
    return np.stack([table[images[..., channel], channel] for channel in range(3)], axis=-1)
