"""Tversky index and focal Tversky loss, on `keras.ops` alone.

B slices, H x W pixels. Our own, since `keras.losses.Tversky` names its two weights the
wrong way round in some releases, has no smoothing, and no floor.
"""

import keras
from keras import ops


def tversky_index(y_true, y_pred, *, missed_weight, smoothing=1.0):
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

    Returns:
        Scalar in (0, 1].
    """
    y_true = ops.cast(y_true, y_pred.dtype)
    hit = ops.sum(y_true * y_pred)
    missed = ops.sum(y_true) - hit
    invented = ops.sum(y_pred) - hit
    cost = missed_weight * missed + (1 - missed_weight) * invented
    return (hit + smoothing) / (hit + cost + smoothing)


def focal_tversky(y_true, y_pred, *, missed_weight, exponent, floor=1e-6):
    """Loss (1 - TI) ** exponent, kept away from the infinite slope at TI = 1.

    Args:
        y_true, y_pred: as in `tversky_index`.
        exponent: under 1 the slope grows as the index nears 1; 0.75 in the published system.
        floor: least value of 1 - TI, > 0. At a perfect (or correctly empty) batch the power
            would have an infinite slope and turn every weight to NaN; from the floor on the
            slope is 0.

    Returns:
        Scalar in [floor ** exponent, 1].

    Source: Abraham & Khan 2019, whose gamma is 1 / exponent; 0.75 is their 4/3.
    """
    index = tversky_index(y_true, y_pred, missed_weight=missed_weight)
    return ops.power(ops.maximum(1.0 - index, floor), exponent)


class FocalTversky(keras.losses.Loss):
    """`focal_tversky` as Keras takes it; summed over the batch already, so not reduced again."""

    def __init__(self, *, missed_weight: float, exponent: float):
        super().__init__(name="focal_tversky", reduction="none")
        self.missed_weight = missed_weight
        self.exponent = exponent

    def call(self, y_true, y_pred):
        return focal_tversky(
            y_true, y_pred, missed_weight=self.missed_weight, exponent=self.exponent
        )
