"""Scores as rows of a table, and a decision as Markdown."""

from dataclasses import replace

from making import POLICY

from flows.artifacts import decision_markdown, pair_rows, score_rows
from pipeline.domain.comparison import PatientScore
from pipeline.domain.decisions import Candidate, ChampionChange, Comparison, DecisionRecord, Score
from pipeline.domain.gate import Reason

SCORES = {
    "test": {
        "tversky": {"mean": 0.812345, "low": 0.7, "high": 0.9, "patients": 17, "median": 0.83},
        "false_alarms": {"mean": 0.01449, "low": 0.0, "high": 0.03, "slices": 412},
    },
    "validation": {"tversky": {"mean": 0.75, "low": 0.6, "high": 0.8, "patients": 9}},
    "seed_tversky": {"mean": 0.86, "batches": 12},
    "groups": {"site": {"AX": {}}},
}
DECISION = DecisionRecord(
    verdict="reject",
    reasons=(
        Reason("test Tversky", "failed", "The test Tversky is too low."),
        Reason("loads back", "passed", "The model loads back."),
    ),
    candidate=Candidate(4, "0123456789abcdef", Score(0.5, 0.4, 0.6, 17)),
    champion=ChampionChange(before=3, after=3),
    policy=POLICY,
    when="2026-05-12T10:00:00+00:00",
    who="Ada Roe",
)


def test_test_scores_come_before_validation_scores_with_four_decimals():
    assert score_rows(SCORES) == [
        {"split": "test", "score": "tversky", "mean": 0.8123, "low": 0.7, "high": 0.9, "count": 17},
        {"split": "test", "score": "false_alarms", "mean": 0.0145, "low": 0.0, "high": 0.03,
         "count": 412},
        {"split": "validation", "score": "tversky", "mean": 0.75, "low": 0.6, "high": 0.8,
         "count": 9},
    ]  # fmt: skip


def test_splits_that_were_not_evaluated_have_no_rows():
    assert score_rows({"seed_tversky": {"mean": 0.86, "batches": 12}}) == []


def test_a_decision_has_its_headline_every_reason_version_and_digest():
    assert decision_markdown(DECISION).splitlines() == [
        f"## {DECISION.headline}",
        "",
        "- **failed**: The test Tversky is too low.",
        "- passed: The model loads back.",
        "",
        "Version 4, digest `0123456789ab`.",
    ]


def test_patients_of_a_comparison_are_listed_with_the_largest_fall_first():
    patients = (
        PatientScore("P1", 0.9, 0.8, {"site": "CS"}),
        PatientScore("P2", 0.5, 0.8, {"site": "DU"}),
        PatientScore("P3", 0.5, None, {"site": "DU"}),
    )
    compared = replace(DECISION, comparison=Comparison(None, (), (), patients))
    assert pair_rows(compared) == [
        {"patient": "P2", "champion": 0.8, "candidate": 0.5, "difference": -0.3, "site": "DU"},
        {"patient": "P1", "champion": 0.8, "candidate": 0.9, "difference": 0.1, "site": "CS"},
    ]
    assert pair_rows(DECISION) == []
