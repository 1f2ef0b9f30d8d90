"""How good a segmentation is: Tversky and Dice by patient, intervals, the published measure.

S slices, H x W pixels. Masks are bool, probabilities lie in [0, 1]. Does not know which
patient is which: callers group.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Overlap:
    """Pixels of a truth and a prediction, counted over any number of slices."""

    hit: int
    missed: int
    invented: int

    @property
    def tumour(self) -> int:
        return self.hit + self.missed

    @property
    def predicted(self) -> int:
        return self.hit + self.invented


def overlap(truth: np.ndarray, predicted: np.ndarray) -> Overlap:
    """Count true positives, false negatives and false positives of two bool arrays of one shape."""
    hit = int(np.count_nonzero(truth & predicted))
    return Overlap(
        hit=hit,
        missed=int(np.count_nonzero(truth)) - hit,
        invented=int(np.count_nonzero(predicted)) - hit,
    )


def tversky(found: Overlap, *, missed_weight: float) -> float:
    """Tversky index of cut masks: TP / (TP + w * FN + (1 - w) * FP).

    Args:
        missed_weight: w in [0, 1], what a missed pixel (FN) costs against an invented one.

    Returns:
        In [0, 1]; both masks empty: 1.0 (nothing was there and nothing was said).
        Where only one is empty: 0.0.

    Source: Salehi, Erdogmus, Gholipour 2017, with w for their beta.
    """
    if found.hit == 0:
        return 0.0 if found.missed or found.invented else 1.0
    cost = missed_weight * found.missed + (1 - missed_weight) * found.invented
    return found.hit / (found.hit + cost)


def dice(found: Overlap) -> float:
    """Dice coefficient 2 TP / (2 TP + FN + FP), in [0, 1]; both masks empty: 1.0."""
    return tversky(found, missed_weight=0.5)


def sensitivity(found: Overlap) -> float:
    """Share of tumour pixels that were found, in [0, 1]; no tumour: 1.0."""
    return 1.0 if found.tumour == 0 else found.hit / found.tumour


def precision(found: Overlap) -> float:
    """Share of predicted pixels that are tumour, in [0, 1]; nothing predicted: 1.0."""
    return 1.0 if found.predicted == 0 else found.hit / found.predicted


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap_mean(values: np.ndarray, *, resamples: int, seed: int) -> Interval:
    """Mean with its 95 % percentile interval, resampling the values (patients) with replacement.

    Args:
        values: (N,) one value a patient, N >= 1.
        resamples: how often to draw N of N.
        seed: of the draws.

    Returns:
        low and high are the 2.5 and 97.5 percentiles of the resampled means; with one value
        they equal the mean, and say nothing.

    Source: Efron & Tibshirani 1993, percentile method.
    """
    values = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def bootstrap_share(hits: np.ndarray, totals: np.ndarray, *, resamples: int, seed: int) -> Interval:
    """A share pooled over patients (sum of hits / sum of totals) with its 95 % interval.

    Args:
        hits, totals: (N,) counts, one a patient; totals may hold zeros, not only zeros.

    Returns:
        `count` is the sum of totals. Resamples in which no total is left are passed over.
    """
    hits, totals = np.asarray(hits, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(hits), size=(resamples, len(hits)))
    drawn = totals[draws].sum(axis=1)
    shares = hits[draws].sum(axis=1)[drawn > 0] / drawn[drawn > 0]
    low, high = np.percentile(shares, [2.5, 97.5])
    return Interval(float(hits.sum() / totals.sum()), float(low), float(high), int(totals.sum()))


def soft_tversky(truth: np.ndarray, probability: np.ndarray, *, missed_weight: float) -> float:
    """Tversky index of probabilities that were not cut, all pixels in one sum, smoothing 1 pixel.

        TI = (TP + 1) / (TP + w * FN + (1 - w) * FP + 1)

    Args:
        truth: bool, any shape; probability: the same shape, in [0, 1].
    """
    hit = float(probability[truth].sum(dtype=np.float64))
    missed = float(np.count_nonzero(truth)) - hit
    invented = float(probability.sum(dtype=np.float64)) - hit
    return (hit + 1) / (hit + missed_weight * missed + (1 - missed_weight) * invented + 1)


def seed_tversky(
    truth: np.ndarray, probability: np.ndarray, *, missed_weight: float, batch: int = 16
) -> tuple[float, int]:
    """The published system's measure: soft, batches of tumour slices, mean over batches.

    A number to compare with its 0.8661, and with nothing else: large tumours outweigh small
    ones, tumour-free slices do not count, and slices of one patient count apart.

    Args:
        truth: (S, H, W) bool, tumour slices alone, in the order in which they are batched.
        probability: (S, H, W) in [0, 1].
        batch: slices flattened together; the last batch may hold fewer.

    Returns:
        (mean over batches, number of batches); (0.0, 0) without slices.
    """
    scores = [
        soft_tversky(truth[i : i + batch], probability[i : i + batch], missed_weight=missed_weight)
        for i in range(0, len(truth), batch)
    ]
    return (float(np.mean(scores)), len(scores)) if scores else (0.0, 0)


def terciles(sizes: np.ndarray) -> tuple[float, float]:
    """The two bounds that cut sizes (N,) into thirds: small below the first, large from the second."""
    low, high = np.percentile(sizes, [100 / 3, 200 / 3])
    return float(low), float(high)


def size_group(pixels: float, bounds: tuple[float, float]) -> str:
    if pixels < bounds[0]:
        return "small"
    return "medium" if pixels < bounds[1] else "large"


def members(labels: dict[str, list[str]]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Every group of every grouping: (grouping, group, (N,) bool of who belongs to it)."""
    for grouping, values in labels.items():
        column = np.array(values, dtype=object)
        for group in sorted(set(values)):
            yield grouping, group, column == group
