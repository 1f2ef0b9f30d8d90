import json
from dataclasses import replace

import pytest

from pipeline.domain.gate import Policy, decide
from pipeline.domain.metrics import Interval

POLICY = Policy(min_tversky=0.6, min_tversky_low=0.4, min_patients=5)
GOOD = Interval(mean=0.7, low=0.5, high=0.9, count=10)


def decided(test: Interval = GOOD, *, policy: Policy = POLICY, loads_back: bool = True):
    return decide(test, policy=policy, loads_back=loads_back, loaded="3 masks were compared.")


def failed(decision) -> list[str]:
    return [reason.rule for reason in decision.reasons if not reason.passed]


def sentence(decision, rule: str) -> str:
    return next(reason.sentence for reason in decision.reasons if reason.rule == rule)


def test_a_model_that_passes_every_rule_is_promoted():
    decision = decided()
    assert decision.verdict == "promote"
    assert failed(decision) == []


@pytest.mark.parametrize(
    ("test", "loads_back", "rule"),
    [
        (replace(GOOD, mean=0.5999), True, "test Tversky"),
        (replace(GOOD, low=0.3999), True, "interval"),
        (GOOD, False, "loads back"),
    ],
)
def test_each_rule_that_fails_alone_rejects(test, loads_back, rule):
    decision = decided(test, loads_back=loads_back)
    assert decision.verdict == "reject"
    assert failed(decision) == [rule]


def test_too_few_patients_alone_are_inconclusive():
    decision = decided(replace(GOOD, count=4))
    assert decision.verdict == "inconclusive"
    assert failed(decision) == ["enough patients"]


@pytest.mark.parametrize(
    ("test", "loads_back"),
    [(replace(GOOD, mean=0.1, count=4), True), (replace(GOOD, count=4), False)],
)
def test_too_few_patients_do_not_save_a_model_that_fails(test, loads_back):
    decision = decided(test, loads_back=loads_back)
    assert decision.verdict == "reject"
    assert "enough patients" in failed(decision)


def test_values_on_the_bounds_pass():
    assert decided(Interval(mean=0.6, low=0.4, high=0.6, count=5)).verdict == "promote"


def test_the_best_model_passes_the_strictest_policy():
    strictest = Policy(min_tversky=1.0, min_tversky_low=1.0, min_patients=1)
    assert decided(Interval(1.0, 1.0, 1.0, 1), policy=strictest).verdict == "promote"


def test_the_worst_model_passes_a_policy_that_asks_for_nothing():
    nothing = Policy(min_tversky=0.0, min_tversky_low=0.0, min_patients=1)
    assert decided(Interval(0.0, 0.0, 0.0, 1), policy=nothing).verdict == "promote"


def test_a_score_that_is_no_number_rejects():
    nan = float("nan")
    decision = decided(Interval(nan, nan, nan, 10))
    assert decision.verdict == "reject"
    assert failed(decision) == ["test Tversky", "interval"]


@pytest.mark.parametrize(
    "test", [GOOD, Interval(0.1, 0.0, 0.2, 1)], ids=["all rules pass", "all rules fail"]
)
def test_every_reason_has_a_sentence_with_its_numbers(test):
    decision = decided(test)
    score = sentence(decision, "test Tversky")
    assert f"{test.mean:.4f}" in score and f"{test.count} patients" in score and "0.6" in score
    interval = sentence(decision, "interval")
    assert f"{test.low:.4f} to {test.high:.4f}" in interval and "0.4" in interval
    patients = sentence(decision, "enough patients")
    assert f"{test.count} test patients" in patients and "is 5" in patients
    assert sentence(decision, "loads back") == "3 masks were compared."
    assert all(reason.sentence.endswith(".") for reason in decision.reasons)


def test_a_sentence_says_which_parameter_asked_for_it():
    decision = decided(Interval(0.1, 0.0, 0.2, 1))
    assert "gate.min_tversky" in sentence(decision, "test Tversky")
    assert "gate.min_tversky_low" in sentence(decision, "interval")
    assert "gate.min_patients" in sentence(decision, "enough patients")


def test_sentences_of_passing_and_failing_differ():
    passing, failing = decided(), decided(Interval(0.1, 0.0, 0.2, 1))
    for rule in ("test Tversky", "interval", "enough patients"):
        assert sentence(passing, rule) != sentence(failing, rule)
    assert "too few" in sentence(failing, "enough patients")
    assert "under 0.4" in sentence(failing, "interval")


def test_every_rule_is_told_whatever_the_verdict():
    rules = ["test Tversky", "interval", "loads back", "enough patients"]
    for decision in (decided(), decided(Interval(0.1, 0.0, 0.2, 1), loads_back=False)):
        assert [reason.rule for reason in decision.reasons] == rules


def test_a_decision_is_written_as_json_that_others_read():
    written = json.loads(json.dumps(decided(replace(GOOD, count=4)).as_dict()))
    assert written["verdict"] == "inconclusive"
    assert [set(reason) for reason in written["reasons"]] == [{"rule", "passed", "sentence"}] * 4
    assert [reason["passed"] for reason in written["reasons"]] == [True, True, True, False]
