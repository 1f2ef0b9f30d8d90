"""Leakage from two cross-validations whose results are given."""

import pandas as pd
import pytest

from pipeline.adapters.storage import json_files
from pipeline.app import cross_validation, leakage
from pipeline.app.cross_validation import CrossValidation

TVERSKY = {"patient": 0.70, "slice": 0.85}
DICE = {"patient": 0.65, "slice": 0.83}
SEED_TVERSKY = {"patient": 0.80, "slice": 0.90}
EMPTY = pd.DataFrame()


def score(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "median": mean, "patients": 20}


def fake_folds(project, params, plan, *, say) -> CrossValidation:
    """Stand in for `cross_validation.run_folds`."""
    say(f"{plan.first} of {plan.folds} folds")
    metrics = {
        "test": {"tversky": score(TVERSKY[plan.unit]), "dice": score(DICE[plan.unit])},
        "seed_tversky": {"mean": SEED_TVERSKY[plan.unit], "batches": 9},
    }
    return CrossValidation(EMPTY, metrics, EMPTY)


@pytest.fixture(autouse=True)
def given_results(monkeypatch) -> None:
    monkeypatch.setattr(cross_validation, "run_folds", fake_folds)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def measure(project, said):
    """A function that measures leakage with the project's parameters, or others."""

    def call(params=project.params) -> dict:
        return leakage.measure(project, params, count=5, first=2, say=said.append)

    return call


@pytest.fixture
def with_decision(project) -> None:
    """The project has a decision, as a finished run leaves it."""
    decision = {
        "verdict": "promote",
        "reasons": [{"rule": "test Tversky", "passed": True, "sentence": "It is high."}],
        "candidate": {"version": 1, "digest": "ab" * 32,
                      "tversky": {"mean": 0.8, "low": 0.7, "high": 0.9, "patients": 6}},
        "champion": {"before": None, "after": 1},
        "policy": {"min_tversky": 0.6, "min_tversky_low": 0.0, "min_patients": 5},
        "when": "2026-05-12T10:00:00+00:00",
        "who": "Ada Roe",
    }  # fmt: skip
    json_files.write_json(project.path("index").with_name("decision.json"), decision)


def other_training(project):
    train = project.params.train.model_copy(update={"epochs": 7})
    return project.params.model_copy(update={"train": train})


def test_leakage_is_the_score_by_slice_minus_the_score_by_patient(measure):
    result = measure()
    assert result["flattered"] == {"tversky": 0.15, "dice": 0.18, "seed_tversky": 0.1}
    assert result["patient"]["tversky"] == score(0.70)
    assert result["slice"]["seed_tversky"] == {"mean": 0.90, "batches": 9}


def test_both_cross_validations_run_the_same_folds(measure, said):
    result = measure()
    assert said == ["by patient: 2 of 5 folds", "by slice: 2 of 5 folds"]
    assert result["folds"] == {"dealt": 5, "run": 2}


def test_the_result_is_stored_with_its_training_parameters(measure, project):
    result = measure()
    path = project.path("index").with_name("leakage.json")
    assert json_files.read_json(path) == result == leakage.stored_result(project)
    assert result["recipe"]["epochs"] == project.params.train.epochs


def test_a_project_without_a_measurement_has_no_stored_result(project):
    assert leakage.stored_result(project) is None


def test_a_measurement_with_other_training_parameters_does_not_count(measure, project):
    measure(other_training(project))
    assert leakage.stored_result(project) is None


def test_the_report_with_a_decision_shows_the_result(measure, project, with_decision):
    measure()
    page = project.path("index").read_text()
    assert "It is high." in page
    assert 'id="leakage"' in page
    assert "0.85" in page and "0.15" in page


def test_the_report_does_not_show_a_result_of_other_training_parameters(
    measure, project, with_decision
):
    measure(other_training(project))
    assert not project.path("index").exists()


def test_a_report_without_a_decision_is_left_alone(measure, project):
    measure()
    assert not project.path("index").exists()
