"""Segment a scan: the probabilities of a network, and post-processing to a mask.

S slices in a scan, N of them segmented, H x W pixels. Does not know networks: callers pass the
function that predicts.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

from pipeline.domain import intensity, test_time_augmentation
from pipeline.errors import GliaflowError

if TYPE_CHECKING:
    from pipeline.params import Evaluate

# Voxels are connected by a side, an edge or a corner, in a slice and to the neighbouring slices.
CONNECTED = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class PostProcessing:
    """Rules that turn the predictions of a network into a mask, in the order of application.

    views: number of views to average for each slice, see `test_time_augmentation`.
    threshold: lowest probability that counts as tumour, in (0, 1).
    keep: `all`, or only the `largest` connected region of the scan.
    min_area_px: a slice with fewer tumour pixels than this is emptied; at least 0.
    """

    threshold: float
    views: int
    keep: Literal["all", "largest"]
    min_area_px: int

    @classmethod
    def from_params(cls, section: "Evaluate") -> "PostProcessing":
        """Return the post-processing that `params.yaml: evaluate` asks for."""
        return cls(section.threshold, section.views, section.keep, section.min_area_px)


@dataclass(frozen=True)
class Segmentation:
    """The output for N slices of a scan.

    probability: (N, H, W) float32 in [0, 1], before post-processing.
    mask: (N, H, W) bool, after it.
    """

    probability: np.ndarray
    mask: np.ndarray


def segment_scan(
    predict: test_time_augmentation.Predictor,
    images: np.ndarray,
    post: PostProcessing,
    *,
    model_name: str,
    positions: np.ndarray | None = None,
) -> Segmentation:
    """Segment a scan with a network and post-process the result.

    Args:
        predict: the network.
        images: (S, H, W, 3) uint8, all slices of the scan in order; may be memory-mapped.
        model_name: of the network; determines the scale of intensities, see `intensity`.
        positions: indices of the N slices to segment, in order; None: all S.
    """
    selected = images if positions is None else images[positions]
    scaled = intensity.scale_for_model(model_name, selected, images)
    probability = test_time_augmentation.average_views(predict, scaled, post.views)
    if not np.isfinite(probability).all():
        raise GliaflowError(
            f"the model {model_name} gives values that are no probabilities (NaN or infinite) for a "
            "scan; nothing was predicted: use another model"
        )
    mask = probability >= post.threshold
    if post.keep == "largest":
        mask = largest_region(mask)
    return Segmentation(probability, remove_small_areas(mask, post.min_area_px))


def largest_region(mask: np.ndarray) -> np.ndarray:
    """Return only the connected region with the most pixels.

    Args:
        mask: (S, H, W) bool.

    Returns:
        (S, H, W) bool. Of regions of equal size, the first by slice, row and column is
        returned. All False if the mask is empty.
    """
    labels, regions = ndimage.label(mask, structure=CONNECTED)
    if regions == 0:
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())[1:]
    largest: np.ndarray = labels == 1 + int(np.argmax(sizes))
    return largest


def remove_small_areas(mask: np.ndarray, min_area_px: int) -> np.ndarray:
    """Return a mask in which slices with fewer than `min_area_px` tumour pixels are emptied.

    Args:
        mask: (S, H, W) bool.

    Returns:
        (S, H, W) bool.
    """
    result = mask.copy()
    result[mask.sum(axis=(1, 2)) < min_area_px] = False
    return result
