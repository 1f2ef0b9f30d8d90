import pandas as pd
import pytest

from pipeline.domain.summaries import count_by_split, summarize_groups, summarize_patients
from pipeline.params import Evaluate

SECTION = Evaluate(
    splits=("test",),
    threshold=0.5,
    views=1,
    keep="all",
    min_area_px=0,
    missed_weight=0.7,
    resamples=1000,
    seed=1,
)


def patients(**columns: list) -> pd.DataFrame:
    """Two patients as rows of patients.csv, with changed columns."""
    defaults = {
        "tversky": [0.0, 1.0],
        "dice": [0.25, 0.25],
        "sensitivity": [0.5, 0.5],
        "precision": [1.0, 1.0],
        "slices": [5, 10],
        "tumour_slices": [1, 4],
        "false_alarm_slices": [1, 3],
        "site": ["AX", "BR"],
        "size_group": ["small", "small"],
        "missing": ["none", "post"],
    }
    return pd.DataFrame(defaults | columns)


def constant(value: float, *, count: int) -> dict:
    """The summary of equal values, whose interval has no width."""
    return {"mean": value, "low": value, "high": value, "patients": count, "median": value}


def test_scores_are_summarized_over_patients_with_interval_and_median():
    summary = summarize_patients(patients(), SECTION)
    # Resampled means: 0 with probability 1/4, 0.5 with 1/2, 1 with 1/4.
    assert summary["tversky"] == {
        "mean": 0.5,
        "low": 0.0,
        "high": 1.0,
        "patients": 2,
        "median": 0.5,
    }
    assert summary["dice"] == constant(0.25, count=2)
    assert summary["sensitivity"] == constant(0.5, count=2)
    assert summary["precision"] == constant(1.0, count=2)


def test_the_median_is_of_patients_and_not_of_resamples():
    table = pd.concat([patients(dice=[0.0, 0.1]), patients(dice=[0.1, 0.8])])
    summary = summarize_patients(table, SECTION)["dice"]
    assert (summary["mean"], summary["median"], summary["patients"]) == (0.25, 0.1, 4)


def test_false_positives_are_a_share_of_all_tumour_free_slices():
    # 1 of 4 and 3 of 6 slices. Resampled shares: 2/8 with probability 1/4, 4/10, 6/12 with 1/4.
    assert summarize_patients(patients(), SECTION)["false_alarms"] == {
        "mean": 0.4,
        "low": 0.25,
        "high": 0.5,
        "slices": 10,
    }


def test_without_tumour_free_slices_there_is_no_share_of_false_positives():
    table = patients(tumour_slices=[5, 10], false_alarm_slices=[0, 0])
    assert list(summarize_patients(table, SECTION)) == [
        "tversky",
        "dice",
        "sensitivity",
        "precision",
    ]


def test_the_interval_of_a_single_patient_has_no_width():
    summary = summarize_patients(patients()[:1], SECTION)
    assert summary["tversky"] == constant(0.0, count=1)
    assert summary["false_alarms"] == {"mean": 0.25, "low": 0.25, "high": 0.25, "slices": 4}


def test_numbers_are_rounded_to_six_decimals():
    table = patients(dice=[1 / 3, 1 / 3])
    assert summarize_patients(table, SECTION)["dice"] == constant(0.333333, count=2)


def test_groups_have_tversky_and_dice_of_their_patients():
    tversky = {"mean": 0.5, "low": 0.0, "high": 1.0, "patients": 2, "median": 0.5}
    first = {"tversky": constant(0.0, count=1), "dice": constant(0.25, count=1)}
    second = {"tversky": constant(1.0, count=1), "dice": constant(0.25, count=1)}
    assert summarize_groups(patients(), SECTION) == {
        "site": {"AX": first, "BR": second},
        "tumour size": {"small": {"tversky": tversky, "dice": constant(0.25, count=2)}},
        "missing sequence": {"none": first, "post": second},
    }


def test_without_patients_every_grouping_is_empty():
    assert summarize_groups(patients()[:0], SECTION) == {
        "site": {},
        "tumour size": {},
        "missing sequence": {},
    }


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_patients_slices_and_tumour_slices_are_counted_by_split(order):
    rows = pd.DataFrame(
        [
            ("A", "train", 0),
            ("A", "train", 7),
            ("A", "train", 1),
            ("B", "train", 0),
            ("C", "test", 0),
            ("C", "test", 2),
        ],
        columns=["patient", "split", "tumour_pixels"],
    )
    assert count_by_split(rows[order]) == {
        "patients": {"train": 2, "validation": 0, "test": 1},
        "slices": {"train": 4, "validation": 0, "test": 2},
        "tumour_slices": {"train": 2, "validation": 0, "test": 1},
    }


def test_a_patient_whose_slices_are_in_two_splits_counts_in_both():
    rows = pd.DataFrame(
        [("A", "train", 1), ("A", "test", 1)], columns=["patient", "split", "tumour_pixels"]
    )
    assert count_by_split(rows)["patients"] == {"train": 1, "validation": 0, "test": 1}


def test_a_table_without_rows_counts_zero():
    rows = pd.DataFrame({"patient": [], "split": [], "tumour_pixels": []})
    zero = {"train": 0, "validation": 0, "test": 0}
    assert count_by_split(rows) == {"patients": zero, "slices": zero, "tumour_slices": zero}
