"""Records of promotion decisions, with their JSON form, and what follows from a row of them.

Fields have the names they have in `reports/decision.json`. Unknown fields, as other releases may
write them, are ignored. Records are ordered by their number: clocks differ between machines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from pipeline.domain.comparison import Difference, GroupDifference, PatientScore
from pipeline.domain.gate import Decision, Policy, Reason, Verdict
from pipeline.domain.metrics import Interval

# judge: the gate, for a retraining. promote: the gate, for a person who asked. approve: a person,
# on an inconclusive verdict. override: a person, against the gate. rollback: a person, back to
# the champion before. expire: nobody approved in time.
Action = Literal["judge", "promote", "approve", "override", "rollback", "expire"]
BY_A_PERSON = ("promote", "approve", "override", "rollback")


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
        mean, low, high = (_number(float, values[name]) for name in ("mean", "low", "high"))
        return cls(mean, low, high, _number(int, values["patients"]))

    @classmethod
    def of(cls, interval: Interval) -> "Score":
        """Return an interval of the gate as a score."""
        return cls(interval.mean, interval.low, interval.high, interval.count)

    def __str__(self) -> str:
        return f"{self.mean:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True)
class Candidate:
    """The version that is judged.

    digest: of its lineage.
    tversky: its test Tversky, measured for this decision where the gate judged.
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
class TestSet:
    """The test patients of a decision.

    digest: of their slices and masks.
    patients: how many.
    looks: models judged on them so far, with this one.
    """

    digest: str
    patients: int
    looks: int


@dataclass(frozen=True)
class Comparison:
    """The candidate against the champion on the same test patients.

    difference: None without a champion.
    groups: those that were large enough to be judged.
    left_out: test patients that the candidate was trained on.
    patients: scores by patient. They are in decision.json alone, not in the registry's list.
    """

    difference: Difference | None
    groups: tuple[GroupDifference, ...]
    left_out: tuple[str, ...]
    patients: tuple[PatientScore, ...] = field(default=(), compare=False)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Comparison":
        """Read a comparison from its JSON form.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        difference = values["difference"]
        return cls(
            _read(Difference, difference) if difference else None,
            tuple(
                replace(
                    _read(GroupDifference, group), difference=_read(Difference, group["difference"])
                )
                for group in values["groups"]
            ),
            tuple(values["left_out"]),
            tuple(_read(PatientScore, patient) for patient in values.get("patients", ())),
        )


@dataclass(frozen=True)
class DecisionRecord:
    """A decision as it is recorded for good.

    policy: what the gate required.
    when: ISO 8601, UTC.
    who: user name, or the name of the person who answers for it.
    action: what was done, see `Action`.
    why: reason that a person gave; None if the gate decided.
    number: place in the row of decisions, from 1; None until it is recorded.
    test, comparison: None for decisions of a person that no scores were measured for.
    based_on: number of the decision of the gate that `test` and `comparison` were measured for;
        None if they were measured for this one.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    candidate: Candidate
    champion: ChampionChange
    policy: Policy
    when: str
    who: str
    action: Action = "judge"
    why: str | None = None
    number: int | None = field(default=None, compare=False)
    test: TestSet | None = None
    comparison: Comparison | None = None
    based_on: int | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DecisionRecord":
        """Read a record from its JSON form.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        candidate = values["candidate"]
        test, comparison = values.get("test"), values.get("comparison")
        return cls(
            verdict=values["verdict"],
            reasons=tuple(_read(Reason, reason) for reason in values["reasons"]),
            candidate=Candidate(
                _number(int, candidate["version"]),
                candidate["digest"],
                Score.from_json(candidate["tversky"]),
            ),
            champion=_read(ChampionChange, values["champion"]),
            policy=_read(Policy, values["policy"]),
            when=values["when"],
            who=values["who"],
            action=values["action"],
            why=values["why"],
            number=values["number"],
            test=_read(TestSet, test) if test else None,
            comparison=Comparison.from_json(comparison) if comparison else None,
            based_on=values["based_on"],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of decision.json."""
        values = asdict(self)
        values["reasons"] = [reason.as_dict() for reason in self.reasons]
        if self.comparison:
            lists = ("groups", "left_out", "patients")
            values["comparison"] |= {name: list(values["comparison"][name]) for name in lists}
        return values

    @property
    def moves_champion(self) -> bool:
        return self.champion.before != self.champion.after

    @property
    def is_by_a_person(self) -> bool:
        """Whether a person put a version into use; it stands until a new model is judged."""
        return self.verdict == "promote" and self.action in BY_A_PERSON

    @property
    def headline(self) -> str:
        """The verdict as one sentence, with the champion that results."""
        version, after = self.candidate.version, self.champion.after
        champion = f"the champion is version {after}" if after else "there is no champion"
        if self.action == "rollback":
            return f"Rolled back: version {version} is the champion again."
        return {
            "promote": f"Promoted: version {version} is the champion.",
            "reject": f"Rejected: version {version} is not promoted; {champion}.",
            "inconclusive": f"Inconclusive: version {version} needs a person to decide; {champion}.",
        }[self.verdict]


def judged(
    decision: Decision,
    *,
    candidate: Candidate,
    before: int | None,
    policy: Policy,
    when: str,
    who: str,
    test: TestSet,
    left_out: Sequence[str],
    patients: Sequence[PatientScore],
    action: Action = "judge",
) -> DecisionRecord:
    """Return the record of a decision of the gate.

    Args:
        before: version of the champion so far. A promotion makes the candidate the champion.
    """
    after = candidate.version if decision.verdict == "promote" else before
    return DecisionRecord(
        decision.verdict,
        decision.reasons,
        candidate,
        ChampionChange(before, after),
        policy,
        when,
        who,
        action=action,
        test=test,
        comparison=Comparison(
            decision.difference, decision.groups, tuple(left_out), tuple(patients)
        ),
    )


def champion_stack(decisions: Sequence[DecisionRecord]) -> list[int]:
    """Return the champions that a rollback goes back through; the present one is last.

    A promotion adds a champion and a rollback removes the last, so two rollbacks go back two.

    Args:
        decisions: newest first.
    """
    stack: list[int] = []
    for decision in reversed(decisions):
        if not decision.moves_champion or decision.champion.after is None:
            continue
        if decision.action == "rollback" and decision.champion.after in stack:
            while stack[-1] != decision.champion.after:
                stack.pop()
        else:
            stack.append(decision.champion.after)
    return stack


def waiting(decisions: Sequence[DecisionRecord]) -> list[DecisionRecord]:
    """Return the inconclusive decisions that a person may still answer, newest first.

    Those are the last ones on their version, made since the champion last moved.

    Args:
        decisions: newest first.
    """
    result: list[DecisionRecord] = []
    answered: set[str] = set()
    for decision in decisions:
        if decision.moves_champion:
            break
        if decision.verdict == "inconclusive" and decision.candidate.digest not in answered:
            result.append(decision)
        answered.add(decision.candidate.digest)
    return result


def champion_at(decisions: Sequence[DecisionRecord], when: str) -> DecisionRecord | None:
    """Return the decision that made the version champion that was in use at a time.

    Args:
        decisions: newest first.
        when: ISO 8601, UTC, to the second.

    Returns:
        None if there was no champion yet.
    """
    for decision in decisions:
        if decision.moves_champion and decision.when <= when:
            return decision
    return None


def standing_decision(
    decisions: Sequence[DecisionRecord], candidate_digest: str
) -> DecisionRecord | None:
    """Return a person's decision that a retraining of a candidate must not undo.

    That is the last one by a person, if it was about another version, and the candidate had
    been judged before: an unchanged retraining moves nothing.

    Args:
        decisions: newest first.
    """
    for place, decision in enumerate(decisions):
        if decision.is_by_a_person:
            judged_before = any(
                earlier.candidate.digest == candidate_digest for earlier in decisions[place + 1 :]
            )
            is_other = decision.candidate.digest != candidate_digest
            return decision if judged_before and is_other else None
    return None


def looks(decisions: Sequence[DecisionRecord], test_digest: str, candidate_digest: str) -> int:
    """Count the models that were judged on the same test patients, with the candidate."""
    digests = {
        decision.candidate.digest
        for decision in decisions
        if decision.test and decision.test.digest == test_digest
    }
    return len(digests | {candidate_digest})


_Part = TypeVar(
    "_Part", Reason, ChampionChange, Policy, TestSet, Difference, GroupDifference, PatientScore
)


def _read(kind: type[_Part], values: Mapping[str, Any]) -> _Part:
    """Make a dataclass from the values of its fields; other values are ignored.

    Raises:
        KeyError: the value of a field is missing.
    """
    return kind(**{field.name: values[field.name] for field in fields(kind)})


_Number = TypeVar("_Number", int, float)


def _number(kind: type[_Number], value: Any) -> _Number:
    """Return a value as a number.

    Raises:
        TypeError, ValueError: it is none, or too large: JSON may hold Infinity and 400 digits.
    """
    try:
        return kind(value)
    except OverflowError as error:
        raise ValueError(str(error)) from error
