import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.domain.comparison import PatientScore
from pipeline.domain.gate import Decision, Evidence, Policy, Reason, decide

POLICY = Policy(
    min_tversky=0.6,
    min_tversky_low=0.4,
    min_patients=5,
    margin=0.0625,
    group_margin=0.125,
    min_group=5,
    test_budget=20,
    approval="inconclusive",
)
RELATIVE = replace(POLICY, min_tversky=0.0, min_tversky_low=0.0, min_patients=1)
LOADS = Reason("loads back", "passed", "3 masks were compared.")
RULES = [
    "test Tversky", "interval", "not worse", "groups", "test budget", "loads back",
    "enough patients",
]  # fmt: skip

# Scores in [0, 1] with six decimals, as the stages write them.
SCORE = st.integers(0, 10**6).map(lambda number: number / 10**6)


def against(champion: float, candidates: Sequence[float], **groups: str) -> list[PatientScore]:
    """Return patients whom the champion scores alike."""
    return [PatientScore(f"P{i}", score, champion, groups) for i, score in enumerate(candidates)]


def first(scores: Sequence[float]) -> list[PatientScore]:
    """Return patients without a champion."""
    return [PatientScore(f"P{i}", score, None, {}) for i, score in enumerate(scores)]


EVIDENCE = Evidence(
    scores=against(0.75, [0.75] * 8, site="CS"),
    has_champion=True,
    left_out=[],
    checks=[LOADS],
    looks=1,
    resamples=500,
    seed=1,
)


def judge(
    scores: Sequence[PatientScore] = EVIDENCE.scores, *, policy: Policy = POLICY, **changes: object
) -> Decision:
    return decide(replace(EVIDENCE, scores=scores, **changes), policy=policy)


def judge_first(scores: Sequence[float], *, policy: Policy = POLICY) -> Decision:
    return judge(first(scores), has_champion=False, policy=policy)


def answers(decision: Decision, answer: str) -> list[str]:
    return [reason.rule for reason in decision.reasons if reason.answer == answer]


def sentence(decision: Decision, rule: str) -> str:
    return next(reason.sentence for reason in decision.reasons if reason.rule == rule)


# --- absolute rules -------------------------------------------------------------------------


def test_a_model_that_passes_every_rule_is_promoted():
    decision = judge()
    assert decision.verdict == "promote"
    assert answers(decision, "passed") == RULES


def test_the_first_champion_needs_the_absolute_rules_and_the_checks_alone():
    decision = judge_first([0.7] * 5)
    assert decision.verdict == "promote"
    assert answers(decision, "passed") == [RULES[i] for i in (0, 1, 5, 6)]
    assert (decision.difference, decision.groups) == (None, ())


@pytest.mark.parametrize(
    ("scores", "failed"),
    [
        ([0.5999] * 5, ["test Tversky"]),
        (
            [0.0, 0.9, 0.9, 0.9, 0.9],
            ["interval"],
        ),  # mean 0.72; with 0.0 three times in a resample: 0.36
        ([0.1] * 5, ["test Tversky", "interval"]),
    ],
)
def test_a_score_under_a_bound_rejects(scores, failed):
    decision = judge_first(scores)
    assert decision.verdict == "reject"
    assert answers(decision, "failed") == failed


def test_scores_equal_to_the_bounds_pass():
    policy = replace(POLICY, min_tversky=0.5, min_tversky_low=0.5)
    assert judge_first([0.5] * 5, policy=policy).verdict == "promote"


def test_the_best_model_passes_the_strictest_policy():
    strictest = replace(POLICY, min_tversky=1.0, min_tversky_low=1.0, min_patients=1, margin=0.0)
    assert judge(against(1.0, [1.0]), policy=strictest).verdict == "inconclusive"  # one patient
    assert judge(against(1.0, [1.0, 1.0]), policy=strictest).verdict == "promote"


def test_the_worst_model_passes_a_policy_without_requirements():
    assert judge_first([0.0], policy=RELATIVE).verdict == "promote"


@pytest.mark.parametrize("scores", [[float("nan")] * 5, []], ids=["NaN", "no patients"])
def test_a_model_without_a_score_is_rejected(scores):
    decision = judge_first(scores)
    assert decision.verdict == "reject"
    assert answers(decision, "failed") == ["test Tversky", "interval"]


# --- against the champion -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidates", "verdict"),
    [
        ([0.9] * 8, "promote"),  # better
        ([0.75] * 8, "promote"),  # equal
        ([0.72] * 8, "promote"),  # worse by 0.03, certain, within the margin
        ([0.6875] * 8, "promote"),  # worse by exactly the margin
        ([0.68] * 8, "reject"),  # worse by 0.07 for certain
        ([1.0, 0.5] * 4, "inconclusive"),  # as good on average, by about 0.2 either way
        ([0.5, 0.8] * 4, "inconclusive"),  # worse by 0.1, by about 0.13 either way
        ([0.95, 0.85] * 4, "promote"),  # better by 0.15, by about 0.05 either way
    ],
)
def test_the_candidate_must_not_be_worse_than_the_champion(candidates, verdict):
    decision = judge(against(0.75, candidates))
    assert decision.verdict == verdict
    expected = {"promote": "passed", "reject": "failed", "inconclusive": "cannot tell"}[verdict]
    assert [r.answer for r in decision.reasons if r.rule == "not worse"] == [expected]


def test_a_single_common_patient_cannot_tell():
    decision = judge(against(0.75, [0.1]), policy=RELATIVE)
    assert decision.verdict == "inconclusive"
    assert "-0.6500; one patient has no interval" in sentence(decision, "not worse")


def test_without_common_patients_nobody_can_tell():
    decision = judge(first([0.9] * 8))
    assert (decision.verdict, decision.difference) == ("inconclusive", None)
    assert answers(decision, "cannot tell") == ["not worse"]
    assert "8 patients the champion was trained on are left out" in sentence(decision, "not worse")


def test_patients_the_champion_was_trained_on_count_for_the_absolute_rules_alone():
    decision = judge([*against(0.75, [0.75] * 6), *first([0.7] * 2)])
    assert (decision.test.count, decision.difference.patients) == (8, 6)
    assert "2 patients the champion was trained on" in sentence(decision, "not worse")
    assert decision.verdict == "promote"


@pytest.mark.parametrize(
    ("fallen", "verdict"),
    [(0.5, "reject"), (0.65, "promote")],  # by 0.25, and by 0.1: within gate.group_margin
)
def test_a_group_must_not_fall_although_the_mean_holds(fallen, verdict):
    scores = against(0.75, [fallen] * 5, site="CS") + against(0.75, [1.0] * 10, site="DU")
    decision = judge(scores)
    assert decision.verdict == verdict
    assert answers(decision, "failed") == (["groups"] if verdict == "reject" else [])


def test_a_group_that_fell_is_named_with_its_numbers():
    scores = against(0.75, [0.5] * 5, site="CS") + against(0.75, [1.0] * 10, site="DU")
    text = sentence(judge(scores), "groups")
    assert "1 of 2 groups" in text
    assert "site CS by -0.2500 (-0.2500 to -0.2500)" in text


def test_a_group_under_the_smallest_size_is_not_judged():
    scores = against(0.75, [0.0] * 4, site="CS") + against(0.75, [1.0] * 16, site="DU")
    decision = judge(scores)
    assert "None of 1 groups of at least 5 patients" in sentence(decision, "groups")
    assert "groups" in answers(decision, "passed")


@pytest.mark.parametrize(("looks", "verdict"), [(20, "promote"), (21, "inconclusive")])
def test_a_person_decides_once_the_test_patients_were_used_too_often(looks, verdict):
    decision = judge(looks=looks)
    assert decision.verdict == verdict
    assert f"{looks} models" in sentence(decision, "test budget")
    assert "20 (gate.test_budget)" in sentence(decision, "test budget")


# --- checks, number of patients, approval ---------------------------------------------------


def test_a_check_that_failed_rejects():
    decision = judge(checks=[LOADS, Reason("lineage", "failed", "It is another split.")])
    assert decision.verdict == "reject"
    assert answers(decision, "failed") == ["lineage"]
    assert sentence(decision, "lineage") == "It is another split."


def test_a_check_that_cannot_tell_leaves_the_decision_to_a_person():
    assert judge(checks=[Reason("lineage", "cannot tell", "?")]).verdict == "inconclusive"


def test_too_few_patients_alone_leave_the_decision_to_a_person():
    decision = judge(against(0.75, [0.75] * 4))
    assert decision.verdict == "inconclusive"
    assert answers(decision, "cannot tell") == ["not worse", "enough patients"]
    assert "fewer than 5 (gate.min_patients) are too few" in sentence(decision, "not worse")


def test_a_model_that_fails_on_too_few_patients_is_rejected():
    decision = judge_first([0.1] * 4)
    assert decision.verdict == "reject"
    assert "enough patients" in answers(decision, "cannot tell")


def test_left_out_patients_are_mentioned():
    decision = judge(left_out=["P8", "P9"])
    assert "2 patients that it was trained on are left out" in sentence(decision, "enough patients")


def test_a_person_may_have_to_approve_every_promotion():
    always = replace(POLICY, approval="always")
    assert judge(policy=always).verdict == "inconclusive"
    assert answers(judge(policy=always), "cannot tell") == ["approval"]
    assert judge(against(0.75, [0.1] * 8), policy=always).verdict == "reject"


# --- sentences ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scores",
    [EVIDENCE.scores, against(0.75, [0.0, 0.3]), first([0.7] * 3)],
    ids=["all rules pass", "worse", "nobody in common"],
)
def test_every_rule_is_reported_in_a_sentence_whatever_the_verdict(scores):
    decision = judge(scores)
    assert [reason.rule for reason in decision.reasons] == RULES
    assert all(reason.sentence.endswith(".") for reason in decision.reasons)


def test_every_sentence_contains_its_numbers():
    decision = judge(against(0.75, [0.0, 0.3]))
    score = sentence(decision, "test Tversky")
    assert "0.1500" in score and "2 patients" in score and "0.6" in score
    assert "0.0000 to 0.3000" in sentence(decision, "interval")
    compared = sentence(decision, "not worse")
    assert "same 2 patients" in compared and "-0.6000 (-0.7500 to -0.4500)" in compared
    patients = sentence(decision, "enough patients")
    assert "2 test patients are too few" in patients and "is 5" in patients


def test_every_sentence_names_its_parameter():
    fallen = against(0.75, [0.5] * 5, site="CS")
    for scores in (EVIDENCE.scores, fallen):
        decision = judge(scores)
        for rule, key in [
            ("test Tversky", "min_tversky"),
            ("interval", "min_tversky_low"),
            ("not worse", "margin"),
            ("groups", "group_margin"),
            ("test budget", "test_budget"),
            ("enough patients", "min_patients"),
        ]:
            assert f"gate.{key}" in sentence(decision, rule)
    assert "gate.min_group" in sentence(judge(), "groups")
    assert "gate.approval" in sentence(judge(policy=replace(POLICY, approval="always")), "approval")


def test_the_three_answers_have_different_sentences():
    texts = {
        sentence(judge(against(0.75, candidates)), "not worse").split("): ")[1]
        for candidates in ([0.75] * 8, [0.5] * 8, [1.0, 0.5] * 4)
    }
    assert len(texts) == 3


@pytest.mark.parametrize(
    ("policy", "rule"),
    [(POLICY, "test Tversky"), (replace(POLICY, min_tversky_low=0.6), "interval")],
)
def test_a_failed_value_is_never_shown_rounded_up_to_its_bound(policy, rule):
    assert "0.59999000" in sentence(judge_first([0.59999] * 5, policy=policy), rule)  # not 0.6000


def test_a_reason_can_be_written_as_json():
    written = json.loads(json.dumps([reason.as_dict() for reason in judge().reasons]))
    assert [set(reason) for reason in written] == [{"rule", "passed", "answer", "sentence"}] * 7
    assert all(reason["passed"] and reason["answer"] == "passed" for reason in written)


# --- properties -----------------------------------------------------------------------------


@st.composite
def patient(draw: st.DrawFn, *, equal: bool) -> PatientScore:
    """Return a patient with both scores, which are often equal or nearly so, and a site."""
    champion = draw(SCORE)
    near = st.integers(-60_000, 60_000).map(lambda step: round(champion + step / 10**6, 6))
    candidate = champion if equal else draw(st.one_of(near, SCORE, st.just(champion)))
    site = draw(st.sampled_from(["CS", "DU"]))
    return PatientScore("", min(max(candidate, 0.0), 1.0), champion, {"site": site})


def paired_scores(*, equal: bool = False) -> st.SearchStrategy[list[PatientScore]]:
    """Return 1 to 12 patients."""
    return st.lists(patient(equal=equal), min_size=1, max_size=12).map(
        lambda scores: [replace(score, patient=f"P{i}") for i, score in enumerate(scores)]
    )


POLICIES = st.builds(
    replace,
    st.just(RELATIVE),
    margin=st.sampled_from([0.0, 0.01, 0.03, 0.1]),
    group_margin=st.sampled_from([0.0, 0.05, 0.1]),
    min_group=st.integers(2, 5),
)


@given(paired_scores(equal=True), POLICIES)
@settings(deadline=None)
def test_a_candidate_that_equals_the_champion_is_never_rejected(scores, policy):
    assert judge(scores, policy=policy).verdict != "reject"


@given(paired_scores(), SCORE, st.sampled_from(["CS", "DU"]), POLICIES)
@settings(deadline=None)
def test_a_patient_on_whom_both_agree_never_turns_promote_into_reject(scores, score, site, policy):
    assume(judge(scores, policy=policy).verdict == "promote")
    agreed = PatientScore("Q", score, score, {"site": site})
    assert judge([*scores, agreed], policy=policy).verdict != "reject"


@given(paired_scores(), POLICIES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_patients_changes_nothing(scores, policy, random):
    shuffled = random.sample(scores, len(scores))
    assert judge(shuffled, policy=policy) == judge(scores, policy=policy)


@given(paired_scores(), POLICIES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_other_names_of_patients_change_neither_verdict_nor_comparison(scores, policy, random):
    names = random.sample([score.patient for score in scores], len(scores))
    renamed = [replace(score, patient=name) for score, name in zip(scores, names, strict=True)]
    before, after = judge(scores, policy=policy), judge(renamed, policy=policy)
    assert after.verdict == before.verdict
    assert (after.difference, after.groups) == (before.difference, before.groups)
