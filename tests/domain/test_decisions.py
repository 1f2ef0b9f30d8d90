import copy
import json

import pytest

from pipeline.domain.decisions import Candidate, ChampionChange, DecisionRecord, Score
from pipeline.domain.gate import Decision, Policy, Reason
from pipeline.domain.metrics import Interval

SCORE = Score(mean=0.7, low=0.5, high=0.9, patients=10)
CANDIDATE = Candidate(version=3, digest="5fd1a2", tversky=SCORE)
POLICY = Policy(min_tversky=0.6, min_tversky_low=0.4, min_patients=5)
REASONS = (
    Reason("test Tversky", True, "The score is high enough."),
    Reason("enough patients", False, "These are too few patients."),
)
DECISION_JSON = {
    "verdict": "inconclusive",
    "reasons": [
        {"rule": "test Tversky", "passed": True, "sentence": "The score is high enough."},
        {"rule": "enough patients", "passed": False, "sentence": "These are too few patients."},
    ],
    "candidate": {
        "version": 3,
        "digest": "5fd1a2",
        "tversky": {"mean": 0.7, "low": 0.5, "high": 0.9, "patients": 10},
    },
    "champion": {"before": 2, "after": 2},
    "policy": {"min_tversky": 0.6, "min_tversky_low": 0.4, "min_patients": 5},
    "when": "2026-01-02T03:04:05+00:00",
    "who": "ada",
}
FIELDS = [
    *((name,) for name in DECISION_JSON),
    *(("candidate", name) for name in ("version", "digest", "tversky")),
    *(("candidate", "tversky", name) for name in ("mean", "low", "high", "patients")),
    *(("champion", name) for name in ("before", "after")),
    *(("policy", name) for name in ("min_tversky", "min_tversky_low", "min_patients")),
    *(("reasons", 0, name) for name in ("rule", "passed", "sentence")),
]


def record(verdict: str, *, before: int | None = 2, override: str | None = None) -> DecisionRecord:
    return DecisionRecord.of(
        Decision(verdict, REASONS),
        candidate=CANDIDATE,
        before=before,
        policy=POLICY,
        when="2026-01-02T03:04:05+00:00",
        who="ada",
        override=override,
    )


def without(field: tuple) -> dict:
    """The JSON form of the decision without one of its fields."""
    values = copy.deepcopy(DECISION_JSON)
    *parents, name = field
    holder = values
    for parent in parents:
        holder = holder[parent]
    del holder[name]
    return values


def test_a_record_has_the_documented_json_form():
    assert record("inconclusive").to_json() == DECISION_JSON


def test_reading_and_writing_json_is_the_identity():
    loaded = DecisionRecord.from_json(DECISION_JSON)
    assert loaded == record("inconclusive")
    assert json.loads(json.dumps(loaded.to_json())) == DECISION_JSON


def test_unknown_fields_are_ignored():
    values = copy.deepcopy(DECISION_JSON)
    values["new"] = values["candidate"]["new"] = values["candidate"]["tversky"]["new"] = 1
    values["champion"]["new"] = values["policy"]["new"] = values["reasons"][0]["new"] = 1
    assert DecisionRecord.from_json(values).to_json() == DECISION_JSON


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: ".".join(map(str, field)))
def test_a_missing_field_raises_a_key_error(field):
    with pytest.raises(KeyError, match=field[-1]):
        DecisionRecord.from_json(without(field))


@pytest.mark.parametrize("value", ["high", None])
def test_a_score_that_is_no_number_is_rejected(value):
    with pytest.raises((TypeError, ValueError)):
        Score.from_json({"mean": value, "low": 0.5, "high": 0.9, "patients": 10})


def test_an_override_is_written_only_if_there_is_one():
    assert "override" not in record("promote").to_json()
    values = record("promote", override="agreed").to_json()
    assert values["override"] == "agreed"
    assert DecisionRecord.from_json(values).override == "agreed"


@pytest.mark.parametrize(
    ("verdict", "before", "after"),
    [
        ("promote", 2, 3),
        ("promote", None, 3),
        ("reject", 2, 2),
        ("reject", None, None),
        ("inconclusive", 2, 2),
    ],
)
def test_only_a_promotion_changes_the_champion(verdict, before, after):
    assert record(verdict, before=before).champion == ChampionChange(before, after)


@pytest.mark.parametrize(
    ("verdict", "before", "headline"),
    [
        ("promote", 2, "Promoted: version 3 is the champion."),
        ("promote", None, "Promoted: version 3 is the champion."),
        ("reject", 2, "Rejected: version 3 is not promoted; the champion is version 2."),
        ("reject", None, "Rejected: version 3 is not promoted; there is no champion."),
        (
            "inconclusive",
            2,
            "Inconclusive: version 3 needs a person to decide; the champion is version 2.",
        ),
        (
            "inconclusive",
            None,
            "Inconclusive: version 3 needs a person to decide; there is no champion.",
        ),
    ],
)
def test_the_headline_gives_the_verdict_and_the_champion(verdict, before, headline):
    assert record(verdict, before=before).headline == headline


def test_a_score_is_printed_with_its_interval_and_four_decimals():
    assert str(Score(mean=0.81236, low=0.5, high=0.9, patients=10)) == "0.8124 (0.5000 to 0.9000)"


def test_the_gate_takes_a_score_as_an_interval():
    assert SCORE.interval() == Interval(mean=0.7, low=0.5, high=0.9, count=10)
