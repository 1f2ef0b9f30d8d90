"""Measure segmentations: Tversky and Dice, bootstrap intervals, groups, the published measure.

S slices, H x W pixels. Masks are bool, probabilities lie in [0, 1]. Does not know which
patient is which: callers group.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Overlap:
    """Counts of pixels in which a truth and a prediction agree and differ, over any slices."""

    true_positives: int
    false_negatives: int
    false_positives: int

    @property
    def tumour(self) -> int:
        """Tumour pixels of the truth."""
        return self.true_positives + self.false_negatives

    @property
    def predicted(self) -> int:
        """Tumour pixels of the prediction."""
        return self.true_positives + self.false_positives


def overlap(truth: np.ndarray, predicted: np.ndarray) -> Overlap:
    """Count true positives, false negatives and false positives of two bool arrays of one shape."""
    true_positives = int(np.count_nonzero(truth & predicted))
    return Overlap(
        true_positives=true_positives,
        false_negatives=int(np.count_nonzero(truth)) - true_positives,
        false_positives=int(np.count_nonzero(predicted)) - true_positives,
    )


def tversky(counts: Overlap, *, missed_weight: float) -> float:
    """Return the Tversky index of binary masks: TP / (TP + w * FN + (1 - w) * FP).

    Args:
        missed_weight: w in [0, 1], the cost of a false negative; a false positive costs 1 - w.

    Returns:
        In [0, 1]. Both masks empty: 1.0, since nothing was to be found and nothing was
        predicted. Only one mask empty: 0.0.

    Source: Salehi, Erdogmus, Gholipour 2017, with w for their beta.
    """
    if counts.true_positives == 0:
        return 0.0 if counts.false_negatives or counts.false_positives else 1.0
    cost = missed_weight * counts.false_negatives + (1 - missed_weight) * counts.false_positives
    return counts.true_positives / (counts.true_positives + cost)


def dice(counts: Overlap) -> float:
    """Return the Dice coefficient 2 TP / (2 TP + FN + FP), in [0, 1]; both masks empty: 1.0."""
    return tversky(counts, missed_weight=0.5)


def sensitivity(counts: Overlap) -> float:
    """Return the share of tumour pixels that are predicted, in [0, 1]; no tumour: 1.0."""
    return 1.0 if counts.tumour == 0 else counts.true_positives / counts.tumour


def precision(counts: Overlap) -> float:
    """Return the share of predicted pixels that are tumour, in [0, 1]; none predicted: 1.0."""
    return 1.0 if counts.predicted == 0 else counts.true_positives / counts.predicted


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval. count: what the mean is over."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap_mean(values: np.ndarray, *, resamples: int, seed: int) -> Interval:
    """Return the mean of patients' values with its 95 % percentile interval.

    Args:
        values: (N,) one value per patient, N >= 1; they are resampled with replacement.
        resamples: number of resamples, each of N values.
        seed: of the resampling.

    Returns:
        low and high are the 2.5 and 97.5 percentiles of the resampled means. With a single
        value they equal the mean and carry no information.

    Source: Efron & Tibshirani 1993, percentile method.
    """
    values = np.asarray(values, dtype=np.float64)
    indices = np.random.default_rng(seed).integers(0, len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[indices].mean(axis=1), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def bootstrap_share(hits: np.ndarray, totals: np.ndarray, *, resamples: int, seed: int) -> Interval:
    """Return a share pooled over patients, sum of hits / sum of totals, with its 95 % interval.

    Args:
        hits: (N,) counts per patient, each at most its total.
        totals: (N,) counts per patient; zeros are allowed, but not all zeros.
        resamples, seed: as for `bootstrap_mean`.

    Returns:
        `count` is the sum of totals. Resamples whose totals are all zero are skipped.
    """
    hits, totals = np.asarray(hits, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    indices = np.random.default_rng(seed).integers(0, len(hits), size=(resamples, len(hits)))
    sums = totals[indices].sum(axis=1)
    shares = hits[indices].sum(axis=1)[sums > 0] / sums[sums > 0]
    low, high = np.percentile(shares, [2.5, 97.5])
    return Interval(float(hits.sum() / totals.sum()), float(low), float(high), int(totals.sum()))


def soft_tversky(truth: np.ndarray, probability: np.ndarray, *, missed_weight: float) -> float:
    """Return the Tversky index of probabilities, over all pixels at once, smoothed by 1 pixel.

        TI = (TP + 1) / (TP + w * FN + (1 - w) * FP + 1)

    Args:
        truth: bool, any shape.
        probability: the same shape, in [0, 1]; no threshold is applied.
        missed_weight: w, as for `tversky`.
    """
    true_positives = float(probability[truth].sum(dtype=np.float64))
    false_negatives = float(np.count_nonzero(truth)) - true_positives
    false_positives = float(probability.sum(dtype=np.float64)) - true_positives
    return (true_positives + 1) / (
        true_positives + missed_weight * false_negatives + (1 - missed_weight) * false_positives + 1
    )


def seed_tversky(
    truth: np.ndarray, probability: np.ndarray, *, missed_weight: float, batch: int = 16
) -> tuple[float, int]:
    """Return the published system's measure: soft Tversky per batch of tumour slices, averaged.

    Compare it with the published 0.8661 and nothing else. Large tumours outweigh small ones,
    tumour-free slices are left out, and slices of one patient count separately.

    Args:
        truth: (S, H, W) bool, tumour slices only, in the order in which they are batched.
        probability: (S, H, W) in [0, 1].
        missed_weight: w, as for `tversky`.
        batch: slices per batch; the last batch may hold fewer.

    Returns:
        (mean over batches, number of batches); (0.0, 0) without slices.
    """
    scores = [
        soft_tversky(truth[i : i + batch], probability[i : i + batch], missed_weight=missed_weight)
        for i in range(0, len(truth), batch)
    ]
    return (float(np.mean(scores)), len(scores)) if scores else (0.0, 0)


def terciles(sizes: np.ndarray) -> tuple[float, float]:
    """Return the two bounds that divide sizes (N,) into thirds; see `size_group`."""
    low, high = np.percentile(sizes, [100 / 3, 200 / 3])
    return float(low), float(high)


def size_group(pixels: float, bounds: tuple[float, float]) -> str:
    """Return `small` below the first bound, `large` from the second on, `medium` between."""
    if pixels < bounds[0]:
        return "small"
    return "medium" if pixels < bounds[1] else "large"


def group_members(labels: dict[str, list[str]]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield every group of every grouping.

    Args:
        labels: grouping to the group of each of N patients.

    Yields:
        (grouping, group, (N,) bool: who belongs to the group), groups sorted by name.
    """
    for grouping, values in labels.items():
        column = np.array(values, dtype=object)
        for group in sorted(set(values)):
            yield grouping, group, column == group
