from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from making import parameters

from pipeline.adapters.report import selection


def masks(*truth: int, predicted: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(S, 1, 9) masks of two scans, with this many tumour pixels in each slice."""
    first, second = (
        np.array([[np.arange(9) < pixels] for pixels in counts]) for counts in (truth, predicted)
    )
    return first, second


def test_the_slice_with_most_wrong_pixels_is_among_the_shown():
    truth, predicted = masks(0, 5, 5, 5, 9, predicted=(0, 5, 5, 0, 9))
    assert selection.informative_slices(truth, predicted, 1) == [3]
    assert 3 in selection.informative_slices(truth, predicted, 2)


def test_slices_are_spread_over_those_with_tumour_or_prediction():
    truth, predicted = masks(0, 9, 9, 9, 9, 0, 0, predicted=(0, 9, 9, 9, 9, 1, 0))
    # Wrong only in slice 5; 1 to 5 have tumour, spread over three: 1, 3, 5.
    assert selection.informative_slices(truth, predicted, 3) == [1, 3, 5]


def test_no_slice_is_shown_twice_or_beyond_those_with_tumour():
    truth, predicted = masks(0, 4, 5, 0, predicted=(0, 0, 5, 0))
    assert selection.informative_slices(truth, predicted, 4) == [1, 2]


def test_the_middle_slice_stands_for_a_scan_without_tumour():
    truth, predicted = masks(0, 0, 0, 0, 0, predicted=(0, 0, 0, 0, 0))
    assert selection.informative_slices(truth, predicted, 3) == [2]


@pytest.fixture
def reasons(monkeypatch):
    """Select patients by Dice and return patient to reason; no scans are read."""
    monkeypatch.setattr(
        selection, "patient_figure", lambda row, why, *_: SimpleNamespace(row=row, why=why)
    )

    def select(dices: dict[str, float], *, count: int) -> dict[str, str]:
        table = pd.DataFrame({"patient": list(dices), "dice": list(dices.values())})
        figures = selection.select_patients(
            parameters(report={"patients": count}), table.assign(split="test"), table,
            scans=None, predicted=None,
        )  # fmt: skip
        return {figure.row.patient: figure.why for figure in figures}

    return select


def test_worst_median_and_best_patients_are_selected(reasons):
    dices = {name: i / 10 for i, name in enumerate("ABCDEFG")}
    assert reasons(dices, count=1) == {"A": "worst", "D": "median", "G": "best"}


def test_each_patient_is_selected_once_with_the_lowest_reason(reasons):
    assert reasons({"A": 0.1, "B": 0.5}, count=2) == {"A": "worst", "B": "worst"}
    assert reasons({"A": 0.1, "B": 0.5, "C": 0.9}, count=2) == {
        "A": "worst", "B": "worst", "C": "best",
    }  # fmt: skip


def test_no_test_patients_give_no_figures(reasons):
    assert reasons({}, count=3) == {}
