"""May this model be put into use? The rules, each with its reason in words.

Values in, a decision out: nothing is looked up and nothing is moved here.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.domain.metrics import Interval

Verdict = Literal["promote", "reject", "inconclusive"]


@dataclass(frozen=True)
class Policy:
    """What the gate asks for; the section `gate` of params.yaml."""

    min_tversky: float
    min_tversky_low: float
    min_patients: int


@dataclass(frozen=True)
class Reason:
    rule: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Decision:
    verdict: Verdict
    reasons: tuple[Reason, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "reasons": [asdict(reason) for reason in self.reasons]}


def decide(test: Interval, *, policy: Policy, loads_back: bool, loaded: str) -> Decision:
    """Judge a version by its test Tversky and by whether it works once it is loaded.

    Args:
        test: mean Tversky over test patients with its 95 % interval, each in [0, 1].
        loads_back: whether the registered model gave the masks that were evaluated.
        loaded: what was compared to tell that, in words.

    Returns:
        `reject` where a rule fails; `inconclusive` where all pass on fewer than
        `policy.min_patients` test patients: that waits for a person; else `promote`.
    """
    reasons = (
        _score(test, policy),
        _interval(test, policy),
        Reason("loads back", loads_back, loaded),
        _enough(test, policy),
    )
    enough = reasons[-1].passed
    if not all(reason.passed for reason in reasons[:-1]):
        return Decision("reject", reasons)
    return Decision("promote" if enough else "inconclusive", reasons)


def _score(test: Interval, policy: Policy) -> Reason:
    passed = test.mean >= policy.min_tversky
    shown = f"{test.mean:.4f}"
    if not passed and float(shown) >= policy.min_tversky:
        shown = f"{test.mean:.8f}"  # rounded, it would look like the bound
    return Reason(
        "test Tversky",
        passed,
        f"The test Tversky is {shown} over {test.count} patients; "
        f"{'at least' if passed else 'the gate asks for at least'} {policy.min_tversky} "
        f"{'was asked for' if passed else '(gate.min_tversky)'}.",
    )


def _interval(test: Interval, policy: Policy) -> Reason:
    passed = test.low >= policy.min_tversky_low
    return Reason(
        "interval",
        passed,
        f"Its 95 % interval is {test.low:.4f} to {test.high:.4f}; the lower end "
        f"{'reaches' if passed else 'is under'} {policy.min_tversky_low} (gate.min_tversky_low).",
    )


def _enough(test: Interval, policy: Policy) -> Reason:
    passed = test.count >= policy.min_patients
    return Reason(
        "enough patients",
        passed,
        f"{test.count} test patients; {'enough' if passed else 'too few'} to tell "
        f"(gate.min_patients is {policy.min_patients}).",
    )
