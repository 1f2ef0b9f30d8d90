import numpy as np
import pytest

from pipeline.domain.metrics import (
    Overlap,
    bootstrap_mean,
    bootstrap_share,
    dice,
    members,
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
)  # against TRUTH: 2 hit, 1 missed, 2 invented
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
        (TRUTH, GUESS, Overlap(hit=2, missed=1, invented=2)),
        (GUESS, TRUTH, Overlap(hit=2, missed=2, invented=1)),
        (TRUTH, TRUTH, Overlap(hit=3, missed=0, invented=0)),
        (TRUTH, APART, Overlap(hit=0, missed=3, invented=5)),
        (EMPTY, EMPTY, Overlap(hit=0, missed=0, invented=0)),
        (FULL, EMPTY, Overlap(hit=0, missed=9, invented=0)),
        (EMPTY, FULL, Overlap(hit=0, missed=0, invented=9)),
    ],
)
def test_overlap_counts_hit_missed_and_invented_pixels(truth, predicted, expected):
    assert overlap(truth, predicted) == expected


def test_overlap_counts_over_all_slices_of_a_scan():
    truth, predicted = np.stack([TRUTH, EMPTY]), np.stack([GUESS, APART])
    assert overlap(truth, predicted) == Overlap(hit=2, missed=1, invented=7)


def test_overlap_knows_the_size_of_both_masks():
    found = overlap(TRUTH, GUESS)
    assert (found.tumour, found.predicted) == (3, 4)


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
def test_tversky_of_drawn_masks(truth, predicted, expected):
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
def test_dice_of_drawn_masks(truth, predicted, expected):
    assert dice_of(truth, predicted) == pytest.approx(expected)


@pytest.mark.parametrize("truth", [EMPTY, TRUTH, APART, FULL])
@pytest.mark.parametrize("predicted", [EMPTY, GUESS, FULL])
def test_dice_is_tversky_at_one_half(truth, predicted):
    assert dice_of(truth, predicted) == tversky_of(truth, predicted, 0.5)


def test_a_missed_pixel_costs_more_than_an_invented_one():
    one_missed, one_invented = Overlap(5, missed=1, invented=0), Overlap(5, missed=0, invented=1)
    assert tversky(one_missed, missed_weight=0.7) == pytest.approx(5 / 5.7)
    assert tversky(one_invented, missed_weight=0.7) == pytest.approx(5 / 5.3)


def test_at_the_ends_of_the_weight_tversky_is_sensitivity_and_precision():
    found = overlap(TRUTH, GUESS)
    assert tversky(found, missed_weight=1) == pytest.approx(sensitivity(found))
    assert tversky(found, missed_weight=0) == pytest.approx(precision(found))


@pytest.mark.parametrize(
    ("truth", "predicted", "found_share", "right_share"),
    [
        (TRUTH, GUESS, 2 / 3, 2 / 4),
        (TRUTH, TRUTH, 1.0, 1.0),
        (TRUTH, APART, 0.0, 0.0),
        (FULL, TRUTH, 3 / 9, 1.0),
        (TRUTH, FULL, 1.0, 3 / 9),
        (EMPTY, EMPTY, 1.0, 1.0),
        (EMPTY, TRUTH, 1.0, 0.0),  # no tumour: none missed
        (TRUTH, EMPTY, 0.0, 1.0),  # nothing said: nothing wrong
    ],
)
def test_sensitivity_and_precision_of_drawn_masks(truth, predicted, found_share, right_share):
    found = overlap(truth, predicted)
    assert sensitivity(found) == pytest.approx(found_share)
    assert precision(found) == pytest.approx(right_share)


@pytest.mark.parametrize("values", [[0.25], [0.25] * 7, [0.0] * 3, [1.0] * 3])
def test_an_interval_of_equal_values_has_no_width(values):
    found = bootstrap_mean(np.array(values), resamples=200, seed=1)
    assert (found.mean, found.low, found.high) == (values[0],) * 3
    assert found.count == len(values)


def test_an_interval_of_two_values_spans_both():
    # Resampled means: 0 one time in four, 0.5 every second time, 1 one time in four.
    found = bootstrap_mean(np.array([0.0, 1.0]), resamples=1000, seed=1)
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_an_interval_of_many_values_is_about_two_standard_errors_to_either_side():
    # 400 values, half 0 and half 1: standard error 0.5 / 20 = 0.025, times 1.96.
    found = bootstrap_mean(np.repeat([0.0, 1.0], 200), resamples=2000, seed=1)
    assert found.low == pytest.approx(0.5 - 0.049, abs=0.006)
    assert found.high == pytest.approx(0.5 + 0.049, abs=0.006)


def test_an_interval_repeats_by_its_seed():
    values = np.linspace(0, 1, 30) ** 2
    first, again, other = (bootstrap_mean(values, resamples=100, seed=s) for s in (3, 3, 4))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.mean == other.mean


def test_a_pooled_share_weighs_patients_by_their_totals():
    # Resamples: 1/2 one time in four, 4/12 every second time, 3/10 one time in four.
    found = bootstrap_share(np.array([1, 3]), np.array([2, 10]), resamples=1000, seed=1)
    assert found.mean == pytest.approx(4 / 12)
    assert (found.low, found.high) == (pytest.approx(3 / 10), pytest.approx(1 / 2))
    assert found.count == 12


def test_a_pooled_share_passes_over_resamples_without_totals():
    found = bootstrap_share(np.array([0, 2]), np.array([0, 4]), resamples=1000, seed=1)
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("hits", "share"), [([0, 0, 0], 0.0), ([2, 5, 1], 1.0)])
def test_a_pooled_share_of_none_or_all_has_no_width(hits, share):
    found = bootstrap_share(np.array(hits), np.array([2, 5, 1]), resamples=100, seed=1)
    assert (found.mean, found.low, found.high) == (share, share, share)


def test_a_pooled_share_of_many_patients_is_about_two_standard_errors_to_either_side():
    # One pixel a patient, half of 400 hit: standard error 0.5 / 20 = 0.025, times 1.96.
    found = bootstrap_share(np.repeat([0, 1], 200), np.ones(400), resamples=2000, seed=1)
    assert found.low == pytest.approx(0.5 - 0.049, abs=0.006)
    assert found.high == pytest.approx(0.5 + 0.049, abs=0.006)


def test_a_pooled_share_repeats_by_its_seed():
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
    found = soft_tversky(np.array(truth, bool), np.array(probability), missed_weight=0.7)
    assert found == pytest.approx(expected)


def test_seed_tversky_is_the_mean_over_batches_with_a_short_last_one():
    truth = np.array([[[1, 0]], [[1, 1]], [[1, 0]]], bool)
    probability = np.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.5, 0.5]]])
    # Slices 0 and 1: 2 hit, 1 missed, 0 invented: 3 / 3.7.
    # Slice 2 alone: 0.5 hit, 0.5 missed, 0.5 invented: 1.5 / 2.
    mean, batches = seed_tversky(truth, probability, missed_weight=0.7, batch=2)
    assert mean == pytest.approx((3 / 3.7 + 1.5 / 2) / 2)
    assert batches == 2


def test_seed_tversky_of_one_batch_is_one_sum():
    truth = np.array([[[1, 1]], [[1, 0]]], bool)
    probability = np.array([[[1.0, 1.0]], [[0.0, 0.0]]])
    mean, batches = seed_tversky(truth, probability, missed_weight=0.7)
    assert mean == pytest.approx(3 / 3.7)  # 2 hit, 1 missed
    assert batches == 1


@pytest.mark.parametrize(("slices", "batches"), [(15, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_seed_tversky_takes_sixteen_slices_a_batch(slices, batches):
    truth = np.ones((slices, 1, 1), bool)
    assert seed_tversky(truth, truth.astype(float), missed_weight=0.7) == (1.0, batches)


def test_seed_tversky_without_slices_is_nothing_over_no_batch():
    nothing = np.zeros((0, 2, 2))
    assert seed_tversky(nothing.astype(bool), nothing, missed_weight=0.7) == (0.0, 0)


def test_terciles_lie_a_third_of_the_way_in_from_either_end():
    assert terciles(np.array([40, 10, 30, 20])) == (pytest.approx(20), pytest.approx(30))


@pytest.mark.parametrize(
    ("pixels", "group"),
    [(0, "small"), (19, "small"), (20, "medium"), (29, "medium"), (30, "large"), (999, "large")],
)
def test_a_size_on_a_bound_belongs_to_the_larger_group(pixels, group):
    assert size_group(pixels, (20.0, 30.0)) == group


def test_terciles_cut_nine_sizes_into_threes():
    sizes = np.arange(1, 10)
    groups = [size_group(size, terciles(sizes)) for size in sizes]
    assert groups == ["small"] * 3 + ["medium"] * 3 + ["large"] * 3


@pytest.mark.parametrize("sizes", [[5], [5, 5, 5, 5]])
def test_sizes_that_are_all_the_same_are_one_group(sizes):
    bounds = terciles(np.array(sizes))
    assert bounds == (5.0, 5.0)
    assert {size_group(size, bounds) for size in sizes} == {"large"}


def test_members_goes_through_every_group_of_every_grouping():
    labels = {"site": ["DU", "CS", "DU"], "size": ["small", "small", "small"]}
    found = [(grouping, group, belongs.tolist()) for grouping, group, belongs in members(labels)]
    assert found == [
        ("site", "CS", [False, True, False]),
        ("site", "DU", [True, False, True]),
        ("size", "small", [True, True, True]),
    ]


def test_members_of_nobody_is_no_group():
    assert list(members({"site": []})) == []
