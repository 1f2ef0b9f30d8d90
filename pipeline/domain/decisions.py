"""Records of promotion decisions and the scores behind them, with their JSON form.

Fields have the names they have in `reports/decision.json`. Unknown fields, as other releases may
write them, are ignored.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from pipeline.domain.gate import Decision, Policy, Reason, Verdict
from pipeline.domain.metrics import Interval


@dataclass(frozen=True)
class Score:
    """A mean over patients with its 95 % bootstrap interval, each in [0, 1].

    patients: number of patients that the mean is over.
    """

    mean: float
    low: float
    high: float
    patients: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Score":
        """Read a score from its JSON form.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or not a number.
        """
        mean, low, high = (float(values[name]) for name in ("mean", "low", "high"))
        return cls(mean, low, high, int(values["patients"]))

    def interval(self) -> Interval:
        """Return the score as the gate takes it."""
        return Interval(self.mean, self.low, self.high, self.patients)

    def __str__(self) -> str:
        return f"{self.mean:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True)
class Candidate:
    """The version that is judged.

    digest: of its lineage.
    tversky: its test Tversky.
    """

    version: int
    digest: str
    tversky: Score


@dataclass(frozen=True)
class ChampionChange:
    """Version numbers of the champion before and after a decision; None if there is none."""

    before: int | None
    after: int | None


@dataclass(frozen=True)
class DecisionRecord:
    """A decision as it is recorded for good.

    policy: what the gate required.
    when: ISO 8601, UTC.
    who: user name, or the person responsible for an override.
    override: reason of a promotion against the gate; None if the gate decided.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    candidate: Candidate
    champion: ChampionChange
    policy: Policy
    when: str
    who: str
    override: str | None = None

    @classmethod
    def of(
        cls,
        decision: Decision,
        *,
        candidate: Candidate,
        before: int | None,
        policy: Policy,
        when: str,
        who: str,
        override: str | None = None,
    ) -> "DecisionRecord":
        """Make the record of a decision.

        Args:
            before: version of the champion so far. A promotion makes the candidate the champion.
        """
        after = candidate.version if decision.verdict == "promote" else before
        return cls(
            decision.verdict, decision.reasons, candidate, ChampionChange(before, after),
            policy, when, who, override,
        )  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DecisionRecord":
        """Read a record from its JSON form.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        candidate = values["candidate"]
        return cls(
            verdict=values["verdict"],
            reasons=tuple(_read(Reason, reason) for reason in values["reasons"]),
            candidate=Candidate(
                int(candidate["version"]),
                candidate["digest"],
                Score.from_json(candidate["tversky"]),
            ),
            champion=_read(ChampionChange, values["champion"]),
            policy=_read(Policy, values["policy"]),
            when=values["when"],
            who=values["who"],
            override=values.get("override"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of decision.json; `override` is absent if the gate decided."""
        values = asdict(self)
        values["reasons"] = list(values["reasons"])
        if self.override is None:
            del values["override"]
        return values

    @property
    def headline(self) -> str:
        """The verdict as one sentence, with the champion that results."""
        version, after = self.candidate.version, self.champion.after
        champion = f"the champion is version {after}" if after else "there is no champion"
        return {
            "promote": f"Promoted: version {version} is the champion.",
            "reject": f"Rejected: version {version} is not promoted; {champion}.",
            "inconclusive": f"Inconclusive: version {version} needs a person to decide; {champion}.",
        }[self.verdict]


_Part = TypeVar("_Part", Reason, ChampionChange, Policy)


def _read(kind: type[_Part], values: Mapping[str, Any]) -> _Part:
    """Make a dataclass from the values of its fields; other values are ignored.

    Raises:
        KeyError: the value of a field is missing.
    """
    return kind(**{field.name: values[field.name] for field in fields(kind)})
