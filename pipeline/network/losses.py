"""Tversky index and focal Tversky loss, on `keras.ops` alone.

B slices, H x W pixels. Not Keras's own: `keras.losses.Tversky` confuses its two weights in
some releases, has no smoothing, and no floor.
"""

from typing import Any

import keras
from keras import ops

SLICE_SMOOTHING = 10.0  # pixels; a single pixel then cannot decide a slice with a tiny tumour


def tversky_index(
    y_true: Any,
    y_pred: Any,
    *,
    missed_weight: float,
    smoothing: float = 1.0,
    axis: tuple[int, ...] | None = None,
) -> Any:
    """Compute an overlap that weights false negatives and false positives unequally.

        TI = (TP + s) / (TP + w * FN + (1 - w) * FP + s)

    By default all slices of the batch are one sum, as in the published system. A tumour-free
    slice then counts by its false positives, and its own index (0/0) never arises.

    Args:
        y_true: (B, H, W, 1) truth, 0 or 1.
        y_pred: (B, H, W, 1) probability, in [0, 1].
        missed_weight: w in [0, 1], cost of a false negative (FN); a false positive (FP)
            costs 1 - w. Salehi et al. 2017 call it beta, Abraham & Khan 2019 alpha.
        smoothing: s > 0, in pixels; makes TI = 1 if both are empty.
        axis: axes of a sum; None: all, (1, 2, 3): each slice by itself.

    Returns:
        Scalar in (0, 1]; (B,) if each slice is summed by itself.
    """
    y_true = ops.cast(y_true, y_pred.dtype)
    true_positives = ops.sum(y_true * y_pred, axis=axis)
    false_negatives = ops.sum(y_true, axis=axis) - true_positives
    false_positives = ops.sum(y_pred, axis=axis) - true_positives
    cost = missed_weight * false_negatives + (1 - missed_weight) * false_positives
    return (true_positives + smoothing) / (true_positives + cost + smoothing)


def focal_tversky(
    y_true: Any,
    y_pred: Any,
    *,
    missed_weight: float,
    exponent: float,
    by_slice: float = 0.0,
    floor: float = 1e-6,
) -> Any:
    """Compute the loss (1 - TI) ** exponent, bounded away from its infinite slope at TI = 1.

    Over the batch as one sum, large tumours outweigh small ones. A share of the loss can
    instead be the mean over the slices with tumour, where each slice counts alike.

    Args:
        y_true, y_pred, missed_weight: as in `tversky_index`.
        exponent: under 1 the slope grows as the index nears 1; 0.75 in the published system.
        by_slice: share of the mean over slices, in [0, 1].
        floor: least value of 1 - TI, > 0. At a perfect (or correctly empty) batch the power
            would have an infinite slope and turn every weight to NaN. Below the floor the
            slope is 0.

    Returns:
        Scalar in [floor ** exponent, 1].

    Source: Abraham & Khan 2019, whose gamma is 1 / exponent; 0.75 is their 4/3.
    """

    def focal(index: Any) -> Any:
        return ops.power(ops.maximum(1.0 - index, floor), exponent)

    batch_loss = focal(tversky_index(y_true, y_pred, missed_weight=missed_weight))
    if not by_slice:
        return batch_loss
    slice_losses = focal(
        tversky_index(
            y_true,
            y_pred,
            missed_weight=missed_weight,
            smoothing=SLICE_SMOOTHING,
            axis=(1, 2, 3),
        )
    )
    has_tumour = ops.cast(ops.any(y_true > 0, axis=(1, 2, 3)), slice_losses.dtype)
    mean = ops.sum(slice_losses * has_tumour) / ops.maximum(ops.sum(has_tumour), 1.0)
    return (1 - by_slice) * batch_loss + by_slice * mean


class FocalTversky(keras.losses.Loss):  # type: ignore[misc,unused-ignore]  # Keras has no types
    """`focal_tversky` as a Keras loss. It is summed over the batch, so Keras reduces nothing."""

    def __init__(self, *, missed_weight: float, exponent: float, by_slice: float = 0.0):
        super().__init__(name="focal_tversky", reduction="none")
        self.missed_weight = missed_weight
        self.exponent = exponent
        self.by_slice = by_slice

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return focal_tversky(
            y_true,
            y_pred,
            missed_weight=self.missed_weight,
            exponent=self.exponent,
            by_slice=self.by_slice,
        )
