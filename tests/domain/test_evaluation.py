import numpy as np
import pandas as pd
import pytest

from pipeline.domain.evaluation import ScoredPatient, patient_scores, summarize
from pipeline.params import Evaluate

SECTION = Evaluate(
    splits=("test", "validation"),
    threshold=0.5,
    views=1,
    keep="all",
    min_area_px=0,
    missed_weight=0.7,
    resamples=100,
    seed=1,
)


def scan_of(*slices: list[str]) -> np.ndarray:
    """A mask from rows of text; # is tumour."""
    return np.array([[[pixel == "#" for pixel in row] for row in rows] for rows in slices])


TRUTH = scan_of(["##", ".."], ["..", ".."], ["..", ".."])
PREDICTED = scan_of(["#.", "#."], [".#", ".."], ["..", ".."])


def scored(split: str, *, truth: list[int], probability: list[float]) -> ScoredPatient:
    """A patient with two slices of 1 x 2 pixels, of which one has tumour."""
    slice_truth = np.array([[truth]], bool)
    slice_probability = np.array([[probability]], np.float32)
    scan_truth = np.concatenate([slice_truth, np.zeros((1, 1, 2), bool)])
    mask = np.concatenate([slice_probability >= 0.5, np.zeros((1, 1, 2), bool)])
    row = {"patient": f"P_AX_{split}", "split": split, "site": "AX", "size_group": "small"}
    scores = patient_scores(scan_truth, mask, missed_weight=0.7)
    row = {**row, "missing": "none", **scores}
    return ScoredPatient(row, mask, slice_truth, slice_probability)


def summary_of(*patients: ScoredPatient) -> dict:
    return summarize(pd.DataFrame([patient.row for patient in patients]), patients, SECTION)


PERFECT = {"truth": [1, 0], "probability": [1.0, 0.0]}
HALF = {"truth": [1, 1], "probability": [1.0, 0.0]}


def test_patient_scores_are_the_columns_of_patients_csv():
    # TP 1, FN 1, FP 2, over all three slices.
    assert list(patient_scores(TRUTH, PREDICTED, missed_weight=0.7).items()) == [
        ("tversky", 0.434783),  # 1 / (1 + 0.7 * 1 + 0.3 * 2)
        ("dice", 0.4),  # 2 * 1 / (2 * 1 + 1 + 2)
        ("sensitivity", 0.5),  # 1 / 2
        ("precision", 0.333333),  # 1 / 3
        ("slices", 3),
        ("tumour_slices", 1),
        ("tumour_pixels", 2),
        ("predicted_pixels", 3),
        ("false_alarm_slices", 1),  # the second slice
    ]


@pytest.mark.parametrize(
    ("truth", "predicted", "count"),
    [
        (["##"], ["##"], 0),
        (["#."], [".#"], 0),  # a false positive, but in a tumour slice
        ([".."], [".."], 0),
        ([".."], ["#."], 1),
        ([".."], ["##"], 1),  # slices count, not pixels
    ],
)
def test_false_positives_count_slices_without_tumour_only(truth, predicted, count):
    scores = patient_scores(scan_of(truth), scan_of(predicted), missed_weight=0.7)
    assert scores["false_alarm_slices"] == count


def test_every_tumour_free_slice_with_a_prediction_counts():
    truth, predicted = scan_of([".."], [".."], ["#."]), scan_of(["##"], ["#."], ["#."])
    assert patient_scores(truth, predicted, missed_weight=0.7)["false_alarm_slices"] == 2


def test_scores_of_two_empty_masks_are_one_and_counts_are_zero():
    empty = scan_of(["..", ".."], ["..", ".."])
    assert patient_scores(empty, empty, missed_weight=0.7) == {
        "tversky": 1.0,
        "dice": 1.0,
        "sensitivity": 1.0,
        "precision": 1.0,
        "slices": 2,
        "tumour_slices": 0,
        "tumour_pixels": 0,
        "predicted_pixels": 0,
        "false_alarm_slices": 0,
    }


def test_scores_are_plain_numbers():
    kinds = {type(value) for value in patient_scores(TRUTH, PREDICTED, missed_weight=0.7).values()}
    assert kinds == {int, float}


def test_a_summary_has_the_splits_the_groups_and_the_seed_tversky():
    summary = summary_of(scored("test", **HALF), scored("validation", **PERFECT))
    assert list(summary) == ["test", "validation", "seed_tversky", "groups"]
    assert summary["test"]["dice"]["mean"] == 0.666667  # 2 * 1 / (2 * 1 + 1)
    assert summary["validation"]["dice"]["mean"] == 1.0


def test_a_split_without_patients_is_left_out_of_the_summary():
    summary = summary_of(scored("test", **PERFECT))
    assert list(summary) == ["test", "seed_tversky", "groups"]


def test_a_split_that_is_not_evaluated_is_left_out_of_the_summary():
    summary = summary_of(scored("test", **PERFECT), scored("train", **PERFECT))
    assert list(summary) == ["test", "seed_tversky", "groups"]


def test_the_seed_tversky_is_over_the_slices_of_all_test_patients():
    # One batch of both test patients: TP 2, FN 1, FP 0: (2 + 1) / (2 + 0.7 + 1).
    summary = summary_of(
        scored("test", **PERFECT), scored("test", **HALF), scored("validation", **HALF)
    )
    assert summary["seed_tversky"] == {"mean": 0.810811, "batches": 1}


def test_groups_are_of_test_patients():
    summary = summary_of(scored("test", **HALF), scored("validation", **PERFECT))
    assert summary["groups"]["site"]["AX"]["dice"]["patients"] == 1
    assert summary["groups"]["site"]["AX"]["dice"]["mean"] == 0.666667


def test_without_test_patients_there_is_no_seed_tversky_and_no_group():
    summary = summary_of(scored("validation", **PERFECT))
    assert list(summary) == ["validation", "groups"]
    assert summary["groups"] == {"site": {}, "tumour size": {}, "missing sequence": {}}
