import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.comparison import (
    Difference,
    GroupDifference,
    PatientScore,
    group_differences,
    paired_difference,
)

# Sixteenths, which floats hold exactly.
DIFFERENCES = st.lists(
    st.integers(-16, 16).map(lambda number: number / 16), min_size=1, max_size=12
)


def patients(differences: list[float], **groups: str) -> list[PatientScore]:
    return [PatientScore(f"P{i}", 0.5 + d, 0.5, groups) for i, d in enumerate(differences)]


def compare(scores: list[PatientScore], *, min_patients: int = 2) -> list[GroupDifference]:
    return group_differences(scores, min_patients=min_patients, margin=0.125, seed=1)


def names(groups: list[GroupDifference]) -> list[tuple[str, str]]:
    return [(group.grouping, group.group) for group in groups]


# --- the interval ---------------------------------------------------------------------------


def test_a_single_patient_has_a_mean_and_no_interval():
    assert paired_difference([-0.25], seed=1) == Difference(-0.25, None, None, 1)


@pytest.mark.parametrize("value", [-0.25, 0.0, 0.5])
def test_equal_differences_leave_no_uncertainty(value):
    assert paired_difference([value] * 6, seed=1) == Difference(value, value, value, 6)


def test_two_patients_have_the_whole_range_as_interval():
    # t with 1 degree of freedom: 12.706 * sqrt(2) = 17.97 standard errors, beyond any resample.
    assert paired_difference([-0.5, 0.25], seed=1) == Difference(-0.125, -0.5, 0.25, 2)


def test_the_interval_of_three_patients_is_read_off_their_27_resamples():
    # t with 2 degrees of freedom: 4.303 * sqrt(3 / 2) = 5.27 standard errors: the extremes again.
    difference = paired_difference([0.0, 0.25, 0.5], seed=1)
    assert (difference.low, difference.high) == (0.0, 0.5)


def test_percentiles_are_those_of_the_enumerated_resamples():
    # Four patients have 256 resamples. At a level of 0.5: t with 3 degrees of freedom is 0.7649,
    # times sqrt(4 / 3) is 0.8832 standard errors, which a normal distribution leaves 18.9 % below.
    values = [0.0, 0.25, 0.5, 0.75]
    means = np.sort([np.mean(four) for four in itertools.product(values, repeat=4)])
    difference = paired_difference(values, level=0.5, seed=1)
    assert difference.low == pytest.approx(means[round(0.189 * 256)])
    assert difference.high == pytest.approx(means[-1 - round(0.189 * 256)])


@pytest.mark.parametrize("count", [5, 8, 20])
def test_the_interval_covers_the_true_mean_in_about_95_percent_of_samples(count):
    samples = np.random.default_rng(3).normal(0.02, 0.1, size=(1500, count))
    intervals = [paired_difference(sample, seed=1, resamples=1500) for sample in samples]
    covered = np.mean([i.low <= 0.02 <= i.high for i in intervals])
    assert 0.925 <= covered <= 0.97


def test_more_patients_and_a_lower_level_narrow_the_interval():
    values = list(np.random.default_rng(5).normal(0, 0.1, size=40))
    few, many = paired_difference(values[:10], seed=1), paired_difference(values, seed=1)
    lower_level = paired_difference(values, level=0.8, seed=1)
    widths = [d.high - d.low for d in (few, many, lower_level)]
    assert widths == sorted(widths, reverse=True)


@given(DIFFERENCES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_patients_does_not_matter(differences, random):
    shuffled = random.sample(differences, len(differences))
    assert paired_difference(shuffled, seed=1) == paired_difference(differences, seed=1)


@given(DIFFERENCES.filter(lambda values: len(values) > 1))
@settings(deadline=None)
def test_mean_and_interval_lie_within_the_differences(differences):
    result = paired_difference(differences, seed=1)
    assert min(differences) <= result.low <= result.mean <= result.high <= max(differences)


def test_numbers_are_shown_with_their_sign():
    assert str(Difference(-0.05, -0.1, 0.02, 9)) == "-0.0500 (-0.1000 to +0.0200)"
    assert str(Difference(0.05, None, None, 1)) == "+0.0500"


# --- groups ---------------------------------------------------------------------------------


def test_a_group_falls_if_its_mean_is_below_the_margin_for_certain():
    assert [group.fell for group in compare(patients([-0.25] * 4, site="CS"))] == [True]


@pytest.mark.parametrize(
    "differences",
    [
        [-0.125] * 4,  # exactly the margin
        [-0.0625] * 4,  # certain, but small
        [-0.5, -0.5, 0.25, 0.125],  # mean -0.16, but the interval reaches above 0
        [0.25] * 4,
    ],
)
def test_a_group_does_not_fall_by_a_small_or_an_uncertain_difference(differences):
    assert [group.fell for group in compare(patients(differences, site="CS"))] == [False]


def test_small_groups_are_not_judged():
    scores = patients([-0.25] * 3, site="CS") + patients([-0.25] * 2, site="DU")
    assert names(compare(scores, min_patients=3)) == [("site", "CS")]


def test_patients_on_whom_both_models_agree_do_not_make_a_group_large():
    assert compare(patients([-0.25, 0, 0, 0], site="CS")) == []


def test_patients_on_whom_both_models_agree_pull_mean_and_interval_towards_0():
    among = paired_difference([-0.5, -0.25], level=0.95, seed=1)
    (group,) = compare(patients([-0.5, -0.25, 0, 0], site="CS"))
    assert group.difference == Difference(-0.1875, among.low / 2, among.high / 2, 4)


def test_patients_without_a_champion_score_are_in_no_group():
    unpaired = PatientScore("P9", 0.5, None, {"site": "CS"})
    (group,) = compare([*patients([-0.25, -0.25], site="CS"), unpaired])
    assert group.difference.patients == 2


def test_every_grouping_counts_and_groups_are_sorted():
    scores = patients([0.25, 0.25], site="DU", size="small") + patients(
        [0.25, 0.25], site="CS", size="small"
    )
    assert names(compare(scores)) == [("site", "CS"), ("site", "DU"), ("size", "small")]


def test_the_level_is_corrected_for_the_number_of_groups():
    differences = list(np.random.default_rng(7).normal(-0.1, 0.1, size=12).round(3))
    others = [
        score for site in ("DU", "EZ", "FG", "HT") for score in patients([0.1] * 2, site=site)
    ]
    (alone,) = compare(patients(differences, site="CS"))
    among_five = compare([*patients(differences, site="CS"), *others])[0]
    scores = [score.difference for score in patients(differences, site="CS")]
    assert alone.difference == paired_difference(scores, level=0.95, seed=1)
    corrected = paired_difference(scores, level=0.99, seed=1)
    assert among_five.difference.low == pytest.approx(corrected.low)
    assert among_five.difference.high == pytest.approx(corrected.high)
    assert among_five.difference.low < alone.difference.low


def test_without_groups_nothing_is_judged():
    assert compare(patients([-0.25] * 4)) == []
    assert compare([]) == []


@pytest.mark.parametrize("champion", [0.8, 0.55, 0.93, 0.31])
def test_a_fall_of_exactly_a_decimal_margin_is_within_it(champion):
    fell = [
        PatientScore(f"P{i}", round(champion - 0.1, 2), champion, {"s": "CS"}) for i in range(5)
    ]
    (group,) = group_differences(fell, min_patients=2, margin=0.1, seed=1)
    assert not group.fell
    assert paired_difference([score.difference for score in fell], seed=1).low == -0.1
