import numpy as np
import pytest

from pipeline.domain.metrics import (
    Overlap,
    bootstrap_mean,
    bootstrap_share,
    dice,
    group_members,
    overlap,
    precision,
    seed_tversky,
    sensitivity,
    size_group,
    soft_tversky,
    terciles,
    tversky,
)


def mask(*rows: str) -> np.ndarray:
    return np.array([[pixel == "X" for pixel in row] for row in rows])


EMPTY = mask("...", "...", "...")
FULL = mask("XXX", "XXX", "XXX")
TRUTH = mask(
    "XX.",
    "X..",
    "...",
)
GUESS = mask(
    "X..",
    "X.X",
    ".X.",
)  # against TRUTH: 2 true positives, 1 false negative, 2 false positives
APART = mask(
    "..X",
    "..X",
    "XXX",
)


def tversky_of(truth: np.ndarray, predicted: np.ndarray, missed_weight: float = 0.7) -> float:
    return tversky(overlap(truth, predicted), missed_weight=missed_weight)


def dice_of(truth: np.ndarray, predicted: np.ndarray) -> float:
    return dice(overlap(truth, predicted))


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        (TRUTH, GUESS, Overlap(true_positives=2, false_negatives=1, false_positives=2)),
        (GUESS, TRUTH, Overlap(true_positives=2, false_negatives=2, false_positives=1)),
        (TRUTH, TRUTH, Overlap(true_positives=3, false_negatives=0, false_positives=0)),
        (TRUTH, APART, Overlap(true_positives=0, false_negatives=3, false_positives=5)),
        (EMPTY, EMPTY, Overlap(true_positives=0, false_negatives=0, false_positives=0)),
        (FULL, EMPTY, Overlap(true_positives=0, false_negatives=9, false_positives=0)),
        (EMPTY, FULL, Overlap(true_positives=0, false_negatives=0, false_positives=9)),
    ],
)
def test_overlap_counts_true_positives_false_negatives_and_false_positives(
    truth, predicted, expected
):
    assert overlap(truth, predicted) == expected


def test_overlap_counts_over_all_slices_of_a_scan():
    truth, predicted = np.stack([TRUTH, EMPTY]), np.stack([GUESS, APART])
    assert overlap(truth, predicted) == Overlap(
        true_positives=2, false_negatives=1, false_positives=7
    )


def test_overlap_gives_the_size_of_both_masks():
    counts = overlap(TRUTH, GUESS)
    assert (counts.tumour, counts.predicted) == (3, 4)


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        (TRUTH, GUESS, 2 / 3.3),  # 2 / (2 + 0.7 * 1 + 0.3 * 2)
        (GUESS, TRUTH, 2 / 3.7),  # 2 / (2 + 0.7 * 2 + 0.3 * 1)
        (FULL, TRUTH, 3 / 7.2),  # 3 / (3 + 0.7 * 6)
        (TRUTH, FULL, 3 / 4.8),  # 3 / (3 + 0.3 * 6)
        (TRUTH, TRUTH, 1.0),
        (FULL, FULL, 1.0),
        (TRUTH, APART, 0.0),
        (EMPTY, EMPTY, 1.0),
        (EMPTY, TRUTH, 0.0),
        (TRUTH, EMPTY, 0.0),
        (EMPTY, FULL, 0.0),
        (FULL, EMPTY, 0.0),
    ],
)
def test_tversky_of_hand_made_masks(truth, predicted, expected):
    assert tversky_of(truth, predicted) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        (TRUTH, GUESS, 4 / 7),  # 2 * 2 / (2 * 2 + 1 + 2)
        (FULL, TRUTH, 6 / 12),  # 2 * 3 / (2 * 3 + 6)
        (TRUTH, FULL, 6 / 12),
        (TRUTH, TRUTH, 1.0),
        (TRUTH, APART, 0.0),
        (EMPTY, EMPTY, 1.0),
        (EMPTY, TRUTH, 0.0),
        (TRUTH, EMPTY, 0.0),
    ],
)
def test_dice_of_hand_made_masks(truth, predicted, expected):
    assert dice_of(truth, predicted) == pytest.approx(expected)


@pytest.mark.parametrize("truth", [EMPTY, TRUTH, APART, FULL])
@pytest.mark.parametrize("predicted", [EMPTY, GUESS, FULL])
def test_dice_is_tversky_with_missed_weight_one_half(truth, predicted):
    assert dice_of(truth, predicted) == tversky_of(truth, predicted, 0.5)


def test_a_false_negative_costs_the_missed_weight_and_a_false_positive_the_rest():
    missed = Overlap(true_positives=5, false_negatives=1, false_positives=0)
    extra = Overlap(true_positives=5, false_negatives=0, false_positives=1)
    assert tversky(missed, missed_weight=0.7) == pytest.approx(5 / 5.7)
    assert tversky(extra, missed_weight=0.7) == pytest.approx(5 / 5.3)


def test_tversky_is_sensitivity_at_missed_weight_one_and_precision_at_zero():
    counts = overlap(TRUTH, GUESS)
    assert tversky(counts, missed_weight=1) == pytest.approx(sensitivity(counts))
    assert tversky(counts, missed_weight=0) == pytest.approx(precision(counts))


@pytest.mark.parametrize(
    ("truth", "predicted", "expected_sensitivity", "expected_precision"),
    [
        (TRUTH, GUESS, 2 / 3, 2 / 4),
        (TRUTH, TRUTH, 1.0, 1.0),
        (TRUTH, APART, 0.0, 0.0),
        (FULL, TRUTH, 3 / 9, 1.0),
        (TRUTH, FULL, 1.0, 3 / 9),
        (EMPTY, EMPTY, 1.0, 1.0),
        (EMPTY, TRUTH, 1.0, 0.0),  # no tumour: nothing missed
        (TRUTH, EMPTY, 0.0, 1.0),  # nothing predicted: nothing wrong
    ],
)
def test_sensitivity_and_precision_of_hand_made_masks(
    truth, predicted, expected_sensitivity, expected_precision
):
    counts = overlap(truth, predicted)
    assert sensitivity(counts) == pytest.approx(expected_sensitivity)
    assert precision(counts) == pytest.approx(expected_precision)


@pytest.mark.parametrize("values", [[0.25], [0.25] * 7, [0.0] * 3, [1.0] * 3])
def test_an_interval_of_equal_values_has_no_width(values):
    interval = bootstrap_mean(np.array(values), resamples=200, seed=1)
    assert (interval.mean, interval.low, interval.high) == (values[0],) * 3
    assert interval.count == len(values)


def test_an_interval_of_two_values_spans_both():
    # Resampled means: 0 with probability 1/4, 0.5 with 1/2, 1 with 1/4.
    interval = bootstrap_mean(np.array([0.0, 1.0]), resamples=1000, seed=1)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.0, 1.0)


def test_an_interval_of_many_values_reaches_about_two_standard_errors_to_either_side():
    # 400 values, half 0 and half 1: standard error 0.5 / 20 = 0.025, times 1.96.
    interval = bootstrap_mean(np.repeat([0.0, 1.0], 200), resamples=2000, seed=1)
    assert interval.low == pytest.approx(0.5 - 0.049, abs=0.006)
    assert interval.high == pytest.approx(0.5 + 0.049, abs=0.006)


def test_an_interval_depends_on_its_seed_alone():
    values = np.linspace(0, 1, 30) ** 2
    first, again, other = (bootstrap_mean(values, resamples=100, seed=s) for s in (3, 3, 4))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.mean == other.mean


def test_a_pooled_share_weights_patients_by_their_totals():
    # Resampled shares: 1/2 with probability 1/4, 4/12 with 1/2, 3/10 with 1/4.
    interval = bootstrap_share(np.array([1, 3]), np.array([2, 10]), resamples=1000, seed=1)
    assert interval.mean == pytest.approx(4 / 12)
    assert (interval.low, interval.high) == (pytest.approx(3 / 10), pytest.approx(1 / 2))
    assert interval.count == 12


def test_a_pooled_share_skips_resamples_without_totals():
    interval = bootstrap_share(np.array([0, 2]), np.array([0, 4]), resamples=1000, seed=1)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("hits", "share"), [([0, 0, 0], 0.0), ([2, 5, 1], 1.0)])
def test_a_pooled_share_of_none_or_all_has_no_width(hits, share):
    interval = bootstrap_share(np.array(hits), np.array([2, 5, 1]), resamples=100, seed=1)
    assert (interval.mean, interval.low, interval.high) == (share, share, share)


def test_a_pooled_share_of_many_patients_reaches_about_two_standard_errors_to_either_side():
    # A total of 1 per patient, half of 400 are hits: standard error 0.5 / 20 = 0.025, times 1.96.
    interval = bootstrap_share(np.repeat([0, 1], 200), np.ones(400), resamples=2000, seed=1)
    assert interval.low == pytest.approx(0.5 - 0.049, abs=0.006)
    assert interval.high == pytest.approx(0.5 + 0.049, abs=0.006)


def test_a_pooled_share_is_the_same_for_the_same_seed():
    hits, totals = np.arange(20), np.full(20, 20)
    first, again = (bootstrap_share(hits, totals, resamples=100, seed=3) for _ in "ab")
    assert first == again


@pytest.mark.parametrize(
    ("truth", "probability", "expected"),
    [
        ([1, 0], [0.5, 0.25], 1.5 / 1.925),  # (0.5 + 1) / (0.5 + 0.7*0.5 + 0.3*0.25 + 1)
        ([1, 1], [1.0, 1.0], 1.0),
        ([0, 0], [0.0, 0.0], 1.0),
        ([1, 1], [0.0, 0.0], 1 / 2.4),  # 1 / (0.7 * 2 + 1)
        ([0, 0], [1.0, 1.0], 1 / 1.6),  # 1 / (0.3 * 2 + 1)
        ([1, 0], [0.0, 1.0], 1 / 2.0),  # 1 / (0.7 + 0.3 + 1)
    ],
)
def test_soft_tversky_of_two_pixels(truth, probability, expected):
    score = soft_tversky(np.array(truth, bool), np.array(probability), missed_weight=0.7)
    assert score == pytest.approx(expected)


def test_seed_tversky_is_the_mean_over_batches_with_a_shorter_last_batch():
    truth = np.array([[[1, 0]], [[1, 1]], [[1, 0]]], bool)
    probability = np.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.5, 0.5]]])
    # Slices 0 and 1: TP 2, FN 1, FP 0: 3 / 3.7.
    # Slice 2 alone: TP 0.5, FN 0.5, FP 0.5: 1.5 / 2.
    mean, batches = seed_tversky(truth, probability, missed_weight=0.7, batch=2)
    assert mean == pytest.approx((3 / 3.7 + 1.5 / 2) / 2)
    assert batches == 2


def test_seed_tversky_of_a_batch_sums_over_its_slices():
    truth = np.array([[[1, 1]], [[1, 0]]], bool)
    probability = np.array([[[1.0, 1.0]], [[0.0, 0.0]]])
    mean, batches = seed_tversky(truth, probability, missed_weight=0.7)
    assert mean == pytest.approx(3 / 3.7)  # TP 2, FN 1
    assert batches == 1


@pytest.mark.parametrize(("slices", "batches"), [(15, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_seed_tversky_uses_batches_of_sixteen_slices(slices, batches):
    truth = np.ones((slices, 1, 1), bool)
    assert seed_tversky(truth, truth.astype(float), missed_weight=0.7) == (1.0, batches)


def test_seed_tversky_without_slices_is_zero_over_no_batches():
    no_slices = np.zeros((0, 2, 2))
    assert seed_tversky(no_slices.astype(bool), no_slices, missed_weight=0.7) == (0.0, 0)


def test_terciles_lie_a_third_of_the_way_from_either_end():
    assert terciles(np.array([40, 10, 30, 20])) == (pytest.approx(20), pytest.approx(30))


@pytest.mark.parametrize(
    ("pixels", "group"),
    [(0, "small"), (19, "small"), (20, "medium"), (29, "medium"), (30, "large"), (999, "large")],
)
def test_a_size_equal_to_a_bound_belongs_to_the_larger_group(pixels, group):
    assert size_group(pixels, (20.0, 30.0)) == group


def test_terciles_divide_nine_sizes_into_three_groups_of_three():
    sizes = np.arange(1, 10)
    groups = [size_group(size, terciles(sizes)) for size in sizes]
    assert groups == ["small"] * 3 + ["medium"] * 3 + ["large"] * 3


@pytest.mark.parametrize("sizes", [[5], [5, 5, 5, 5]])
def test_equal_sizes_are_in_the_same_group(sizes):
    bounds = terciles(np.array(sizes))
    assert bounds == (5.0, 5.0)
    assert {size_group(size, bounds) for size in sizes} == {"large"}


def test_group_members_yields_every_group_of_every_grouping():
    labels = {"site": ["DU", "CS", "DU"], "size": ["small", "small", "small"]}
    groups = [
        (grouping, group, belongs.tolist()) for grouping, group, belongs in group_members(labels)
    ]
    assert groups == [
        ("site", "CS", [False, True, False]),
        ("site", "DU", [True, False, True]),
        ("size", "small", [True, True, True]),
    ]


def test_without_patients_there_are_no_groups():
    assert list(group_members({"site": []})) == []
