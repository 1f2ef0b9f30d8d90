"""The promotion gate: whether a model may be put into use, and why.

Takes values and returns a decision. Looks nothing up and promotes nothing.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.domain.metrics import Interval

Verdict = Literal["promote", "reject", "inconclusive"]


@dataclass(frozen=True)
class Policy:
    """Requirements of the gate: the section `gate` of params.yaml.

    min_tversky: lowest test Tversky that passes, in [0, 1].
    min_tversky_low: lowest lower end of its 95 % interval that passes, in [0, 1].
    min_patients: fewest test patients for a verdict without a person.
    """

    min_tversky: float
    min_tversky_low: float
    min_patients: int


@dataclass(frozen=True)
class Reason:
    """The outcome of one rule. sentence: the outcome with its numbers, for people."""

    rule: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Decision:
    """A verdict with the outcome of every rule, passed or not."""

    verdict: Verdict
    reasons: tuple[Reason, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as values that JSON can hold."""
        return {"verdict": self.verdict, "reasons": [asdict(reason) for reason in self.reasons]}


def decide(test: Interval, *, policy: Policy, loads_back: bool, loaded: str) -> Decision:
    """Judge a version by its test Tversky and by whether the registered model works.

    Args:
        test: mean Tversky over test patients with its 95 % interval, each in [0, 1].
        loads_back: whether the model, loaded from the registry, gave the evaluated masks.
        loaded: sentence that says what was compared for `loads_back`.

    Returns:
        `reject` if any rule fails, apart from the number of patients. `inconclusive`, for a
        person to decide, if all others pass on fewer than `policy.min_patients` test
        patients. Else `promote`.
    """
    enough = _enough_patients(test, policy)
    rules = (
        _score(test, policy),
        _interval(test, policy),
        Reason("loads back", loads_back, loaded),
    )
    reasons = (*rules, enough)
    if not all(reason.passed for reason in rules):
        return Decision("reject", reasons)
    return Decision("promote" if enough.passed else "inconclusive", reasons)


def _score(test: Interval, policy: Policy) -> Reason:
    bound = policy.min_tversky
    passed = test.mean >= bound
    return Reason(
        "test Tversky",
        passed,
        f"The test Tversky over {test.count} patients is {_format_score(test.mean, bound)}, "
        f"{_comparison(passed)} {bound} (gate.min_tversky).",
    )


def _interval(test: Interval, policy: Policy) -> Reason:
    bound = policy.min_tversky_low
    passed = test.low >= bound
    return Reason(
        "interval",
        passed,
        f"Its 95 % interval is {_format_score(test.low, bound)} to {test.high:.4f}; "
        f"the lower end is {_comparison(passed)} {bound} (gate.min_tversky_low).",
    )


def _enough_patients(test: Interval, policy: Policy) -> Reason:
    passed = test.count >= policy.min_patients
    return Reason(
        "enough patients",
        passed,
        f"{test.count} test patients are {'enough' if passed else 'too few'} for a decision "
        f"(gate.min_patients is {policy.min_patients}).",
    )


def _comparison(passed: bool) -> str:
    return "at least" if passed else "under"


def _format_score(value: float, bound: float) -> str:
    """Format with four decimals, or with eight where rounding would lift `value` to `bound`."""
    text = f"{value:.4f}"
    return f"{value:.8f}" if value < bound <= float(text) else text
