"""From the slices of a scan, by what a network says about them, to the scan's mask.

S slices in a scan, N of them looked at, H x W pixels. Does not know networks: what predicts is
handed in.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]  # it brings no types

from pipeline.domain import intensity, views

TOUCHING = np.ones((3, 3, 3), bool)  # by a side, an edge or a corner, in a slice and to the next


@dataclass(frozen=True)
class Rule:
    """How masks follow.

    threshold: from here on a probability is tumour, in (0, 1).
    views: of each slice that the network is asked about, see `views`; the mean counts.
    keep: `all`, or of the regions that hang together in the scan only the `largest`.
    min_area_px: then a slice with fewer tumour pixels than this has none, at least 0.
    """

    threshold: float
    views: int
    keep: Literal["all", "largest"]
    min_area_px: int


@dataclass(frozen=True)
class Found:
    """probability: (N, H, W) float32 in [0, 1]. mask: (N, H, W) bool."""

    probability: np.ndarray
    mask: np.ndarray


def of_scan(
    predict: views.Predictor,
    images: np.ndarray,
    rule: Rule,
    *,
    model_name: str,
    positions: np.ndarray | None = None,
) -> Found:
    """What a network finds in a scan.

    Args:
        images: (S, H, W, 3) uint8, all slices of the scan in order; may be memory-mapped.
        model_name: of the network: says on which scale it takes slices, see `intensity`.
        positions: of the slices to look at, N of S, in order; None: all of them.
    """
    looked_at = images if positions is None else images[positions]
    shown = intensity.fitting(model_name, looked_at, images)
    probability = views.mean(predict, shown, rule.views)
    mask = probability >= rule.threshold
    if rule.keep == "largest":
        mask = largest_region(mask)
    return Found(probability, without_small_areas(mask, rule.min_area_px))


def largest_region(mask: np.ndarray) -> np.ndarray:
    """Only the region with the most pixels; of equal ones the first by slice, row and column.

    Args:
        mask: (S, H, W) bool.

    Returns:
        (S, H, W) bool; all False where the mask is empty.
    """
    labels, regions = ndimage.label(mask, structure=TOUCHING)
    if regions == 0:
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())[1:]
    largest: np.ndarray = labels == 1 + int(np.argmax(sizes))
    return largest


def without_small_areas(mask: np.ndarray, min_area_px: int) -> np.ndarray:
    """Slices with fewer tumour pixels than `min_area_px` emptied.

    Args:
        mask: (S, H, W) bool.

    Returns:
        (S, H, W) bool.
    """
    kept = mask.copy()
    kept[mask.sum(axis=(1, 2)) < min_area_px] = False
    return kept
