"""Tversky index and focal Tversky loss, on `keras.ops` alone.

B slices, H x W pixels. Our own, since `keras.losses.Tversky` names its two weights the
wrong way round in some releases, has no smoothing, and no floor.
"""

import keras
from keras import ops

SLICE_SMOOTHING = 10.0  # in pixels: no single one decides about a slice with a tumour of a few


def tversky_index(y_true, y_pred, *, missed_weight, smoothing=1.0, axis=None):
    """Overlap of truth and prediction that counts missed and invented pixels unequally.

        TI = (TP + s) / (TP + w * FN + (1 - w) * FP + s)

    All slices of the batch are one sum, as the published system does it: a tumour-free
    slice counts by what was invented in it, and its own index (0/0) never arises.

    Args:
        y_true: (B, H, W, 1) truth, 0 or 1.
        y_pred: (B, H, W, 1) probability, in [0, 1].
        missed_weight: w in [0, 1]: what a missed tumour pixel (FN) costs against an
            invented one (FP). Salehi et al. 2017 call it beta, Abraham & Khan 2019 alpha.
        smoothing: s > 0, in pixels; makes TI = 1 where both are empty.
        axis: what is one sum; None is all, (1, 2, 3) each slice by itself.

    Returns:
        Scalar in (0, 1]; (B,) where each slice has its own.
    """
    y_true = ops.cast(y_true, y_pred.dtype)
    hit = ops.sum(y_true * y_pred, axis=axis)
    missed = ops.sum(y_true, axis=axis) - hit
    invented = ops.sum(y_pred, axis=axis) - hit
    cost = missed_weight * missed + (1 - missed_weight) * invented
    return (hit + smoothing) / (hit + cost + smoothing)


def focal_tversky(y_true, y_pred, *, missed_weight, exponent, by_slice=0.0, floor=1e-6):
    """Loss (1 - TI) ** exponent, kept away from the infinite slope at TI = 1.

    Of the batch as one sum, where large tumours outweigh small ones; or, for a share of the loss,
    the mean over the slices with tumour, where each counts alike.

    Args:
        y_true, y_pred: as in `tversky_index`.
        exponent: under 1 the slope grows as the index nears 1; 0.75 in the published system.
        by_slice: that share, in [0, 1].
        floor: least value of 1 - TI, > 0. At a perfect (or correctly empty) batch the power
            would have an infinite slope and turn every weight to NaN; from the floor on the
            slope is 0.

    Returns:
        Scalar in [floor ** exponent, 1].

    Source: Abraham & Khan 2019, whose gamma is 1 / exponent; 0.75 is their 4/3.
    """

    def focal(index):
        return ops.power(ops.maximum(1.0 - index, floor), exponent)

    whole = focal(tversky_index(y_true, y_pred, missed_weight=missed_weight))
    if not by_slice:
        return whole
    each = focal(
        tversky_index(
            y_true,
            y_pred,
            missed_weight=missed_weight,
            smoothing=SLICE_SMOOTHING,
            axis=(1, 2, 3),
        )
    )
    counts = ops.cast(ops.any(y_true > 0, axis=(1, 2, 3)), each.dtype)
    mean = ops.sum(each * counts) / ops.maximum(ops.sum(counts), 1.0)
    return (1 - by_slice) * whole + by_slice * mean


class FocalTversky(keras.losses.Loss):
    """`focal_tversky` as Keras takes it; summed over the batch already, so not reduced again."""

    def __init__(self, *, missed_weight: float, exponent: float, by_slice: float = 0.0):
        super().__init__(name="focal_tversky", reduction="none")
        self.missed_weight = missed_weight
        self.exponent = exponent
        self.by_slice = by_slice

    def call(self, y_true, y_pred):
        return focal_tversky(
            y_true,
            y_pred,
            missed_weight=self.missed_weight,
            exponent=self.exponent,
            by_slice=self.by_slice,
        )
