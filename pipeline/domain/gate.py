"""The promotion gate: whether a model may be put into use, and why.

Takes values and returns a decision. Looks nothing up and promotes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.domain import comparison, metrics
from pipeline.domain.comparison import Answer, Difference, GroupDifference, PatientScore
from pipeline.domain.metrics import Interval

Verdict = Literal["promote", "reject", "inconclusive"]


@dataclass(frozen=True)
class Policy:
    """Requirements of the gate: the section `gate` of params.yaml.

    min_tversky: lowest test Tversky that passes, in [0, 1].
    min_tversky_low: lowest lower end of its 95 % interval that passes, in [0, 1].
    min_patients: fewest test patients for a verdict without a person.
    margin: mean fall against the champion that still counts as not worse, in [0, 1].
    group_margin: mean fall of a group that is accepted, in [0, 1].
    min_group: fewest patients of a group that is judged.
    test_budget: most models that may be judged on the same test patients without a person.
    approval: `always` leaves every promotion to a person, `inconclusive` only those verdicts.
    """

    min_tversky: float
    min_tversky_low: float
    min_patients: int
    margin: float
    group_margin: float
    min_group: int
    test_budget: int
    approval: Literal["inconclusive", "always"]


@dataclass(frozen=True)
class Reason:
    """The outcome of one rule.

    answer: `failed` rejects, `cannot tell` leaves the decision to a person.
    sentence: the outcome with its numbers, for people.
    """

    rule: str
    answer: Answer
    sentence: str

    @property
    def passed(self) -> bool:
        return self.answer == "passed"

    def as_dict(self) -> dict[str, Any]:
        """Return the reason as values that JSON can hold."""
        return {
            "rule": self.rule,
            "passed": self.passed,
            "answer": self.answer,
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class Evidence:
    """What a decision is made from.

    scores: of every test patient that the candidate never saw; candidate and champion were
        scored on the same slices, each with its own post-processing.
    has_champion: whether there is a champion other than the candidate.
    left_out: test patients without a score, since the candidate was trained on them.
    checks: outcomes of checks outside the gate, such as whether the model loads back; any
        that did not pass rejects.
    looks: number of models judged so far on these test patients, with this one.
    resamples, seed: of the bootstrap over patients.
    """

    scores: Sequence[PatientScore]
    has_champion: bool
    left_out: Sequence[str]
    checks: Sequence[Reason]
    looks: int
    resamples: int
    seed: int

    @property
    def paired(self) -> list[PatientScore]:
        """Scores of the patients that neither model was trained on."""
        return [score for score in self.scores if score.champion is not None]


@dataclass(frozen=True)
class Decision:
    """A verdict with the outcome of every rule, passed or not.

    test: mean Tversky over test patients; NaN without patients.
    difference: candidate minus champion; None without a champion or common patients.
    groups: the groups that were large enough to be judged.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    test: Interval
    difference: Difference | None
    groups: tuple[GroupDifference, ...]


def decide(evidence: Evidence, *, policy: Policy) -> Decision:
    """Judge a candidate by its scores, against the champion, and by the checks that were made.

    The first champion needs the absolute rules and the checks alone.

    Returns:
        `reject` if any rule fails; else `inconclusive`, for a person to decide, if any rule
        cannot tell; else `promote`.
    """
    test = _test_score(evidence)
    difference, groups = _compare(evidence, policy)
    reasons = [_score(test, policy), _interval(test, policy)]
    if evidence.has_champion:
        reasons += [
            not_worse(difference, evidence, policy),
            no_group_fell(groups, policy),
            _budget(evidence.looks, policy),
        ]
    reasons += [*evidence.checks, _enough_patients(test, evidence, policy)]
    if policy.approval == "always":
        reasons.append(
            Reason("approval", "cannot tell", "A person approves every promotion (gate.approval).")
        )
    return Decision(verdict_of(reasons), tuple(reasons), test, difference, tuple(groups))


def verdict_of(reasons: Sequence[Reason]) -> Verdict:
    """Return the verdict that follows from the outcomes of all rules."""
    answers = {reason.answer for reason in reasons}
    if "failed" in answers:
        return "reject"
    return "inconclusive" if "cannot tell" in answers else "promote"


def _test_score(evidence: Evidence) -> Interval:
    by_patient = sorted(evidence.scores, key=lambda score: score.patient)
    values = np.array([score.candidate for score in by_patient])
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    return metrics.bootstrap_mean(values, resamples=evidence.resamples, seed=evidence.seed)


def _compare(evidence: Evidence, policy: Policy) -> tuple[Difference | None, list[GroupDifference]]:
    differences = [s.difference for s in evidence.paired if s.difference is not None]
    if not evidence.has_champion or not differences:
        return None, []
    groups = comparison.group_differences(
        evidence.paired,
        min_patients=policy.min_group,
        margin=policy.group_margin,
        seed=evidence.seed,
    )
    return comparison.paired_difference(differences, seed=evidence.seed), groups


def _score(test: Interval, policy: Policy) -> Reason:
    bound = policy.min_tversky
    passed = test.mean >= bound
    return Reason(
        "test Tversky",
        _answer(passed),
        f"The test Tversky over {test.count} patients is {_format_score(test.mean, bound)}, "
        f"{_comparison(passed)} {bound} (gate.min_tversky).",
    )


def _interval(test: Interval, policy: Policy) -> Reason:
    bound = policy.min_tversky_low
    passed = test.low >= bound
    return Reason(
        "interval",
        _answer(passed),
        f"Its 95 % interval is {_format_score(test.low, bound)} to {test.high:.4f}; "
        f"the lower end is {_comparison(passed)} {bound} (gate.min_tversky_low).",
    )


def not_worse(difference: Difference | None, evidence: Evidence, policy: Policy) -> Reason:
    """Judge the mean difference to the champion."""
    rule, margin = "not worse", policy.margin
    left_out = len(evidence.scores) - len(evidence.paired)
    note = f" {left_out} patients the champion was trained on are left out." if left_out else ""
    if difference is None:
        return Reason(
            rule, "cannot tell", f"No test patient is left to compare with the champion.{note}"
        )
    start = (
        f"On the same {difference.patients} patients the candidate differs from the champion by "
        f"{difference}"
    )
    if difference.low is None or difference.high is None:
        return Reason(rule, "cannot tell", f"{start}; one patient has no interval.{note}")
    if difference.patients < policy.min_patients:
        few = f"fewer than {policy.min_patients} (gate.min_patients)"
        return Reason(rule, "cannot tell", f"{start}; {few} are too few to compare.{note}")
    if difference.low >= -margin:
        return Reason(
            rule, "passed", f"{start}: not worse by more than {margin} (gate.margin).{note}"
        )
    if difference.high < -margin:
        return Reason(rule, "failed", f"{start}: worse by more than {margin} (gate.margin).{note}")
    return Reason(
        rule,
        "cannot tell",
        f"{start}: too uncertain to tell whether it is worse by more than {margin} "
        f"(gate.margin).{note}",
    )


def no_group_fell(groups: Sequence[GroupDifference], policy: Policy) -> Reason:
    """Judge the differences of groups."""
    fell = [group for group in groups if group.fell]
    if fell:
        listed = ", ".join(f"{g.grouping} {g.group} by {g.difference}" for g in fell)
        return Reason(
            "groups",
            "failed",
            f"Worse by more than {policy.group_margin} (gate.group_margin) in "
            f"{len(fell)} of {len(groups)} groups: {listed}.",
        )
    return Reason(
        "groups",
        "passed",
        f"None of {len(groups)} groups of at least {policy.min_group} patients (gate.min_group) is "
        f"worse by more than {policy.group_margin} (gate.group_margin).",
    )


def _budget(looks: int, policy: Policy) -> Reason:
    within = looks <= policy.test_budget
    return Reason(
        "test budget",
        "passed" if within else "cannot tell",
        f"{looks} models were judged on these test patients, "
        f"{'at most' if within else 'more than'} {policy.test_budget} (gate.test_budget).",
    )


def _enough_patients(test: Interval, evidence: Evidence, policy: Policy) -> Reason:
    passed = test.count >= policy.min_patients
    left_out = len(evidence.left_out)
    note = f" {left_out} patients that it was trained on are left out." if left_out else ""
    return Reason(
        "enough patients",
        "passed" if passed else "cannot tell",
        f"{test.count} test patients are {'enough' if passed else 'too few'} for a decision "
        f"(gate.min_patients is {policy.min_patients}).{note}",
    )


def _answer(passed: bool) -> Answer:
    return "passed" if passed else "failed"


def _comparison(passed: bool) -> str:
    return "at least" if passed else "under"


def _format_score(value: float, bound: float) -> str:
    """Format with four decimals, or with eight where rounding would lift `value` to `bound`."""
    text = f"{value:.4f}"
    return f"{value:.8f}" if value < bound <= float(text) else text
