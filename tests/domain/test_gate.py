import json
from dataclasses import replace

import pytest

from pipeline.domain.gate import Decision, Policy, decide
from pipeline.domain.metrics import Interval

POLICY = Policy(min_tversky=0.6, min_tversky_low=0.4, min_patients=5)
GOOD = Interval(mean=0.7, low=0.5, high=0.9, count=10)


def judge(test: Interval = GOOD, *, policy: Policy = POLICY, loads_back: bool = True) -> Decision:
    return decide(test, policy=policy, loads_back=loads_back, loaded="3 masks were compared.")


def failed_rules(decision: Decision) -> list[str]:
    return [reason.rule for reason in decision.reasons if not reason.passed]


def sentence(decision: Decision, rule: str) -> str:
    return next(reason.sentence for reason in decision.reasons if reason.rule == rule)


def test_a_model_that_passes_every_rule_is_promoted():
    decision = judge()
    assert decision.verdict == "promote"
    assert failed_rules(decision) == []


@pytest.mark.parametrize(
    ("test", "loads_back", "rule"),
    [
        (replace(GOOD, mean=0.5999), True, "test Tversky"),
        (replace(GOOD, low=0.3999), True, "interval"),
        (GOOD, False, "loads back"),
    ],
)
def test_a_single_failed_rule_rejects(test, loads_back, rule):
    decision = judge(test, loads_back=loads_back)
    assert decision.verdict == "reject"
    assert failed_rules(decision) == [rule]


def test_too_few_patients_alone_make_a_decision_inconclusive():
    decision = judge(replace(GOOD, count=4))
    assert decision.verdict == "inconclusive"
    assert failed_rules(decision) == ["enough patients"]


@pytest.mark.parametrize(
    ("test", "loads_back"),
    [(replace(GOOD, mean=0.1, count=4), True), (replace(GOOD, count=4), False)],
)
def test_a_model_that_fails_on_too_few_patients_is_rejected(test, loads_back):
    decision = judge(test, loads_back=loads_back)
    assert decision.verdict == "reject"
    assert "enough patients" in failed_rules(decision)


def test_values_equal_to_the_bounds_pass():
    assert judge(Interval(mean=0.6, low=0.4, high=0.6, count=5)).verdict == "promote"


def test_the_best_model_passes_the_strictest_policy():
    strictest = Policy(min_tversky=1.0, min_tversky_low=1.0, min_patients=1)
    assert judge(Interval(1.0, 1.0, 1.0, 1), policy=strictest).verdict == "promote"


def test_the_worst_model_passes_a_policy_without_requirements():
    lenient = Policy(min_tversky=0.0, min_tversky_low=0.0, min_patients=1)
    assert judge(Interval(0.0, 0.0, 0.0, 1), policy=lenient).verdict == "promote"


def test_a_score_of_nan_is_rejected():
    nan = float("nan")
    decision = judge(Interval(nan, nan, nan, 10))
    assert decision.verdict == "reject"
    assert failed_rules(decision) == ["test Tversky", "interval"]


@pytest.mark.parametrize(
    "test", [GOOD, Interval(0.1, 0.0, 0.2, 1)], ids=["all rules pass", "all rules fail"]
)
def test_every_sentence_contains_its_numbers(test):
    decision = judge(test)
    score = sentence(decision, "test Tversky")
    assert f"{test.mean:.4f}" in score and f"{test.count} patients" in score and "0.6" in score
    interval = sentence(decision, "interval")
    assert f"{test.low:.4f} to {test.high:.4f}" in interval and "0.4" in interval
    patients = sentence(decision, "enough patients")
    assert f"{test.count} test patients" in patients and "is 5" in patients
    assert sentence(decision, "loads back") == "3 masks were compared."
    assert all(reason.sentence.endswith(".") for reason in decision.reasons)


def test_every_sentence_names_its_parameter():
    decision = judge(Interval(0.1, 0.0, 0.2, 1))
    assert "gate.min_tversky" in sentence(decision, "test Tversky")
    assert "gate.min_tversky_low" in sentence(decision, "interval")
    assert "gate.min_patients" in sentence(decision, "enough patients")


def test_sentences_of_passed_and_failed_rules_differ():
    passing, failing = judge(), judge(Interval(0.1, 0.0, 0.2, 1))
    for rule in ("test Tversky", "interval", "enough patients"):
        assert sentence(passing, rule) != sentence(failing, rule)
    assert "too few" in sentence(failing, "enough patients")
    assert "under 0.4" in sentence(failing, "interval")


@pytest.mark.parametrize(
    ("test", "rule", "shown"),
    [
        (replace(GOOD, mean=0.59999), "test Tversky", "0.59999000"),  # not 0.6000
        (replace(GOOD, low=0.39999), "interval", "0.39999000"),  # not 0.4000
    ],
)
def test_a_failed_value_is_never_shown_rounded_up_to_its_bound(test, rule, shown):
    assert shown in sentence(judge(test), rule)


def test_every_rule_is_reported_whatever_the_verdict():
    rules = ["test Tversky", "interval", "loads back", "enough patients"]
    for decision in (judge(), judge(Interval(0.1, 0.0, 0.2, 1), loads_back=False)):
        assert [reason.rule for reason in decision.reasons] == rules


def test_a_decision_can_be_written_as_json():
    written = json.loads(json.dumps(judge(replace(GOOD, count=4)).as_dict()))
    assert written["verdict"] == "inconclusive"
    assert [set(reason) for reason in written["reasons"]] == [{"rule", "passed", "sentence"}] * 4
    assert [reason["passed"] for reason in written["reasons"]] == [True, True, True, False]
