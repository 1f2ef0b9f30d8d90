import copy
import json
from dataclasses import replace

import pytest
from making import POLICY

from pipeline.domain import decisions as records
from pipeline.domain.comparison import Difference, GroupDifference, PatientScore
from pipeline.domain.decisions import (
    Candidate,
    ChampionChange,
    Comparison,
    DecisionRecord,
    Score,
)
from pipeline.domain.gate import Reason
from pipeline.domain.metrics import Interval

SCORE = Score(mean=0.7, low=0.5, high=0.9, patients=10)
DECISION_JSON = {
    "verdict": "inconclusive",
    "reasons": [
        {
            "rule": "test Tversky", "passed": True, "answer": "passed",
            "sentence": "The score is high enough.",
        },
        {
            "rule": "enough patients", "passed": False, "answer": "cannot tell",
            "sentence": "These are too few patients.",
        },
    ],
    "candidate": {
        "version": 3,
        "digest": "5fd1a2",
        "tversky": {"mean": 0.7, "low": 0.5, "high": 0.9, "patients": 10},
    },
    "champion": {"before": 2, "after": 2},
    "policy": vars(POLICY),
    "when": "2026-01-02T03:04:05+00:00",
    "who": "ada",
    "action": "judge",
    "why": None,
    "number": 7,
    "test": {"digest": "ab12", "patients": 10, "looks": 4},
    "comparison": {
        "difference": {"mean": 0.01, "low": -0.02, "high": 0.04, "patients": 9},
        "groups": [
            {
                "grouping": "site", "group": "CS", "fell": False,
                "difference": {"mean": 0.0, "low": -0.1, "high": 0.1, "patients": 5},
            }
        ],
        "left_out": ["P9"],
        "patients": [
            {"patient": "P1", "candidate": 0.8, "champion": 0.79, "groups": {"site": "CS"}},
            {"patient": "P2", "candidate": 0.6, "champion": None, "groups": {"site": "DU"}},
        ],
    },
    "based_on": 4,
}  # fmt: skip
RECORD = DecisionRecord(
    verdict="inconclusive",
    reasons=(
        Reason("test Tversky", "passed", "The score is high enough."),
        Reason("enough patients", "cannot tell", "These are too few patients."),
    ),
    candidate=Candidate(version=3, digest="5fd1a2", tversky=SCORE),
    champion=ChampionChange(2, 2),
    policy=POLICY,
    when="2026-01-02T03:04:05+00:00",
    who="ada",
    based_on=4,
    number=7,
    test=records.TestSet("ab12", 10, 4),
    comparison=Comparison(
        Difference(0.01, -0.02, 0.04, 9),
        (GroupDifference("site", "CS", Difference(0.0, -0.1, 0.1, 5), False),),
        ("P9",),
        (
            PatientScore("P1", 0.8, 0.79, {"site": "CS"}),
            PatientScore("P2", 0.6, None, {"site": "DU"}),
        ),
    ),
)
OPTIONAL = {"test", "comparison"}  # None where nothing was scored


def decision(
    version: int, before: int | None, after: int | None, *, action="judge", day=1, **changes
) -> DecisionRecord:
    """A decision on a version whose digest is its number."""
    return replace(
        RECORD,
        verdict=changes.pop("verdict", "promote" if before != after else "reject"),
        candidate=Candidate(version, str(version), SCORE),
        champion=ChampionChange(before, after),
        action=action,
        when=f"2026-01-{day:02}T12:00:00+00:00",
        **changes,
    )


def newest_first(*decisions: DecisionRecord) -> list[DecisionRecord]:
    return list(reversed(decisions))


# the JSON form


def test_a_record_has_the_documented_json_form():
    assert json.loads(json.dumps(RECORD.to_json())) == DECISION_JSON


def test_reading_and_writing_json_is_the_identity():
    loaded = DecisionRecord.from_json(DECISION_JSON)
    assert loaded == RECORD
    assert json.loads(json.dumps(loaded.to_json())) == DECISION_JSON


def test_a_decision_without_scores_has_none():
    values = DECISION_JSON | {"test": None, "comparison": None}
    loaded = DecisionRecord.from_json(values)
    assert (loaded.test, loaded.comparison) == (None, None)
    assert loaded.to_json()["comparison"] is None


def test_unknown_fields_are_ignored():
    values = copy.deepcopy(DECISION_JSON)
    for holder in (
        values, values["candidate"], values["candidate"]["tversky"], values["champion"],
        values["policy"], values["reasons"][0], values["test"], values["comparison"],
        values["comparison"]["groups"][0], values["comparison"]["patients"][0],
    ):  # fmt: skip
        holder["new"] = 1
    assert json.loads(json.dumps(DecisionRecord.from_json(values).to_json())) == DECISION_JSON


@pytest.mark.parametrize("name", sorted(set(DECISION_JSON) - OPTIONAL))
def test_a_missing_field_raises_a_key_error(name):
    values = {key: value for key, value in DECISION_JSON.items() if key != name}
    with pytest.raises(KeyError, match=name):
        DecisionRecord.from_json(values)


@pytest.mark.parametrize("value", ["high", None])
def test_a_score_that_is_no_number_is_rejected(value):
    with pytest.raises((TypeError, ValueError)):
        Score.from_json({"mean": value, "low": 0.5, "high": 0.9, "patients": 10})


def test_the_number_and_the_scores_of_patients_do_not_make_another_decision():
    other = replace(RECORD, number=None, comparison=replace(RECORD.comparison, patients=()))
    assert other == RECORD


def test_a_score_is_printed_with_its_interval_and_four_decimals():
    assert str(Score(mean=0.81236, low=0.5, high=0.9, patients=10)) == "0.8124 (0.5000 to 0.9000)"


def test_an_interval_of_the_gate_becomes_a_score():
    assert Score.of(Interval(mean=0.7, low=0.5, high=0.9, count=10)) == SCORE


@pytest.mark.parametrize(
    ("made", "headline"),
    [
        (decision(3, 2, 3), "Promoted: version 3 is the champion."),
        (decision(3, 2, 2), "Rejected: version 3 is not promoted; the champion is version 2."),
        (decision(3, None, None), "Rejected: version 3 is not promoted; there is no champion."),
        (
            decision(3, 2, 2, verdict="inconclusive"),
            "Inconclusive: version 3 needs a person to decide; the champion is version 2.",
        ),
        (
            decision(2, 3, 2, action="rollback"),
            "Rolled back: version 2 is the champion again.",
        ),
    ],
)
def test_the_headline_gives_the_verdict_and_the_champion(made, headline):
    assert made.headline == headline


# what follows from a row of decisions


def test_a_rollback_goes_back_one_champion_and_two_go_back_two():
    row = [decision(1, None, 1), decision(2, 1, 2), decision(9, 2, 2), decision(3, 2, 3)]
    assert records.champion_stack(newest_first(*row)) == [1, 2, 3]
    row.append(decision(2, 3, 2, action="rollback"))
    assert records.champion_stack(newest_first(*row)) == [1, 2]
    row.append(decision(1, 2, 1, action="rollback"))
    assert records.champion_stack(newest_first(*row)) == [1]


def test_a_promotion_after_a_rollback_is_rolled_back_to_the_version_it_replaced():
    row = [
        decision(1, None, 1), decision(2, 1, 2), decision(1, 2, 1, action="rollback"),
        decision(3, 1, 3),
    ]  # fmt: skip
    assert records.champion_stack(newest_first(*row)) == [1, 3]


def test_the_champion_at_a_time_is_that_of_the_last_move_before_it():
    row = newest_first(
        decision(1, None, 1, day=2), decision(2, 1, 2, day=4), decision(3, 2, 2, day=6)
    )
    assert records.champion_at(row, "2026-01-01T00:00:00+00:00") is None
    assert records.champion_at(row, "2026-01-03T00:00:00+00:00").champion.after == 1
    assert records.champion_at(row, "2026-01-09T00:00:00+00:00").champion.after == 2


def test_a_persons_decision_stands_against_a_model_that_was_judged_before():
    row = [decision(1, None, 1), decision(2, 1, 2), decision(1, 2, 1, action="override")]
    assert records.standing_decision(newest_first(*row), "2") == row[-1]
    assert records.standing_decision(newest_first(*row), "1") is None  # it is about this one
    assert records.standing_decision(newest_first(*row), "3") is None  # never judged


def test_a_decision_that_promoted_nothing_does_not_stand():
    refused = decision(2, 1, 1, action="promote")
    assert records.standing_decision(newest_first(decision(1, None, 1), refused), "1") is None


def test_a_decision_waits_until_it_is_answered_or_the_champion_moves():
    asked = decision(2, 1, 1, verdict="inconclusive")
    row = [decision(1, None, 1), asked]
    assert records.waiting(newest_first(*row)) == [asked]
    answered = [*row, decision(2, 1, 1, action="expire")]
    assert records.waiting(newest_first(*answered)) == []
    assert records.waiting(newest_first(*row, decision(3, 1, 3))) == []
    assert records.waiting(newest_first(*row, decision(3, 1, 1))) == [asked]


def test_looks_count_models_and_not_decisions():
    row = newest_first(decision(1, None, 1), decision(1, 1, 1), decision(2, 1, 1))
    assert records.looks(row, "ab12", "2") == 2
    assert records.looks(row, "ab12", "3") == 3
    assert records.looks(row, "another test set", "3") == 1
