"""A changed decision record is read, or refused with one of the documented exceptions."""

import json
from dataclasses import replace

from hypothesis import strategies as st

from pipeline.domain import decisions
from pipeline.domain.comparison import Difference, GroupDifference, PatientScore
from pipeline.domain.decisions import Candidate, ChampionChange, Comparison, DecisionRecord, Score
from pipeline.domain.gate import Policy, Reason
from properties import kept, mutations
from properties.search import search

DIFFERENCE = Difference(mean=0.01, low=-0.02, high=0.04, patients=10)
GOOD = DecisionRecord(
    verdict="promote",
    reasons=(Reason("test Tversky", "passed", "The score is high enough."),),
    candidate=Candidate(3, "5fd1a2", Score(mean=0.7, low=0.5, high=0.9, patients=10)),
    champion=ChampionChange(before=2, after=3),
    policy=Policy(
        min_tversky=0.6,
        min_tversky_low=0.4,
        min_patients=5,
        margin=0.01,
        group_margin=0.02,
        min_group=5,
        test_budget=20,
        approval="inconclusive",
    ),
    when="2026-01-02T03:04:05+00:00",
    who="ada",
    number=1,
    test=decisions.TestSet(digest="77", patients=10, looks=1),
    comparison=Comparison(
        DIFFERENCE,
        (GroupDifference("site", "CS", DIFFERENCE, fell=False),),
        ("P_CS_1",),
        (PatientScore("P_CS_2", 0.7, 0.6, {"site": "CS"}),),
    ),
)
RECORD = json.loads(json.dumps(GOOD.to_json()))


@st.composite
def changed_records(draw: st.DrawFn) -> bytes:
    return json.dumps(draw(mutations.mutated_value(RECORD))).encode()


def check_is_read_or_refused(content: bytes) -> None:
    try:
        record = DecisionRecord.from_json(json.loads(content))
    except (KeyError, TypeError, ValueError):
        return
    assert isinstance(record, DecisionRecord)
    assert isinstance(record.candidate.tversky, Score)


@search("decisions", changed_records())
def test_a_changed_record_is_read_or_refused(content):
    with kept.failing("decisions", content):
        check_is_read_or_refused(content)


@kept.replay("decisions")
def test_kept_records(content):
    check_is_read_or_refused(content)


def test_the_unchanged_record_is_read():
    read = DecisionRecord.from_json(RECORD)
    assert replace(read, comparison=None) == replace(GOOD, comparison=None)
