"""Error rates of the gate: how often it promotes, rejects or leaves the decision to a person.

Two models that were trained alike differ by noise alone, and can be exchanged. A simulated test
set resamples their patients and exchanges the two scores of a patient at random. The candidate's
true mean is set to `delta` below the champion's, and the rules of the gate that compare the two
are applied. Bounds on the score itself, the test budget, approval and checks are off.

P patients with scores of both models, n patients in a simulated test set.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.domain import comparison, gate
from pipeline.domain.comparison import Difference, GroupDifference, PatientScore
from pipeline.domain.gate import Evidence, Policy, Verdict

PATIENTS = (5, 10, 17, 30, 60, 100)
DELTAS = (-0.02, 0.0, 0.01, 0.02, 0.05, 0.1)
CANDIDATES = (1, 5, 10, 20, 50)
JUST_OVER = 0.001  # beyond the margin: a candidate that should not be promoted
RESAMPLES = 1000  # of the bootstrap; the gate takes more, for one decision

_RELATIVE = Evidence(
    scores=(), has_champion=True, left_out=(), checks=(), looks=1, resamples=1, seed=0
)


@dataclass(frozen=True)
class Estimate:
    """A share of simulations, in [0, 1], with its Monte Carlo standard error."""

    share: float
    error: float

    def __str__(self) -> str:
        return f"{self.share:.1%} ± {self.error:.1%}"


@dataclass(frozen=True)
class PowerRow:
    """Verdicts on a candidate that is truly worse by `delta`; negative: better.

    patients: n. promoted, rejected: number of simulations with that verdict.
    """

    patients: int
    delta: float
    promoted: int
    rejected: int
    simulations: int

    @property
    def promote(self) -> Estimate:
        return _estimate(self.promoted, self.simulations)

    @property
    def reject(self) -> Estimate:
        return _estimate(self.rejected, self.simulations)

    @property
    def inconclusive(self) -> Estimate:
        return _estimate(self.simulations - self.promoted - self.rejected, self.simulations)


@dataclass(frozen=True)
class RepeatedRow:
    """Simulations in which one of several equally worse candidates was promoted.

    patients: n, the same for all candidates. candidates: how many were judged.
    promoted: number of simulations in which the gate promoted at least one.
    """

    patients: int
    candidates: int
    delta: float
    promoted: int
    simulations: int

    @property
    def any_promoted(self) -> Estimate:
        return _estimate(self.promoted, self.simulations)


@dataclass(frozen=True)
class Compared:
    """The two models on a simulated test set: overall, and in every group that is judged."""

    difference: Difference
    groups: tuple[GroupDifference, ...]


def compare_samples(
    replicates: Sequence[PatientScore],
    *,
    patients: int,
    min_group: int,
    simulations: int,
    seed: int,
    resamples: int = RESAMPLES,
) -> list[Compared]:
    """Compare two equally good models on simulated test sets.

    Args:
        replicates: scores of P patients by two models trained alike, P >= 1. Every patient has
            both scores.
        patients: n >= 2, sampled with replacement; a patient brings its groups.
        min_group: as in the policy of the gate.
    """
    generator = np.random.default_rng([seed, patients])
    return [
        _compare(
            _exchange(_resample(replicates, patients, generator), generator),
            min_group=min_group, seed=int(generator.integers(2**31)), resamples=resamples,
        )
        for _ in range(simulations)
    ]  # fmt: skip


def power(
    samples: Sequence[Compared], *, patients: int, deltas: Iterable[float], policy: Policy
) -> list[PowerRow]:
    """Judge a candidate that is truly worse by each of `deltas` on every simulated test set.

    Args:
        samples: of `compare_samples`, with the policy's `min_group`.
    """
    rows = []
    for delta in deltas:
        verdicts = [verdict(sample, delta=delta, policy=policy) for sample in samples]
        promoted, rejected = verdicts.count("promote"), verdicts.count("reject")
        rows.append(PowerRow(patients, delta, promoted, rejected, len(verdicts)))
    return rows


def repeated_looks(
    replicates: Sequence[PatientScore],
    *,
    patients: int,
    policy: Policy,
    simulations: int,
    seed: int,
    candidates: Sequence[int] = CANDIDATES,
    resamples: int = RESAMPLES,
) -> list[RepeatedRow]:
    """Simulate how often one of k candidates, all just beyond the margin, is promoted.

    The k candidates share the n test patients; the two scores of a patient are exchanged at
    random for each candidate.

    Args:
        candidates: numbers k.
    """
    generator = np.random.default_rng([seed, patients, 1])
    delta = policy.margin + JUST_OVER
    firsts = [
        _first_promoted(
            _resample(replicates, patients, generator), generator, most=max(candidates),
            delta=delta, policy=policy, resamples=resamples,
        )
        for _ in range(simulations)
    ]  # fmt: skip
    return [
        RepeatedRow(patients, k, delta, sum(first <= k for first in firsts), simulations)
        for k in candidates
    ]


def verdict(sample: Compared, *, delta: float, policy: Policy) -> Verdict:
    """Return the gate's verdict on a candidate that is worse by `delta` on every patient."""
    groups = [
        replace(group, difference=shifted, fell=_fell(shifted, policy.group_margin))
        for group in sample.groups
        for shifted in [_shift(group.difference, delta)]
    ]
    difference = _shift(sample.difference, delta)
    return gate.verdict_of(
        [gate.not_worse(difference, _RELATIVE, policy), gate.no_group_fell(groups, policy)]
    )


def pool_power(rows: Iterable[PowerRow]) -> list[PowerRow]:
    """Add up rows of the same n and delta; return them sorted."""
    sums: dict[tuple[int, float], PowerRow] = {}
    for row in rows:
        before = sums.get((row.patients, row.delta))
        sums[row.patients, row.delta] = row if before is None else _add_power(before, row)
    return [sums[key] for key in sorted(sums)]


def pool_repeated(rows: Iterable[RepeatedRow]) -> list[RepeatedRow]:
    """Add up rows of the same n and number of candidates; return them sorted."""
    sums: dict[tuple[int, int], RepeatedRow] = {}
    for row in rows:
        before = sums.get((row.patients, row.candidates))
        sums[row.patients, row.candidates] = row if before is None else _add_looks(before, row)
    return [sums[key] for key in sorted(sums)]


def _compare(
    sample: Sequence[PatientScore], *, min_group: int, seed: int, resamples: int
) -> Compared:
    groups = comparison.group_differences(
        sample, min_patients=min_group, margin=1.0, seed=seed, resamples=resamples
    )
    differences = [_difference(score) for score in sample]
    return Compared(
        comparison.paired_difference(differences, seed=seed, resamples=resamples), tuple(groups)
    )


def _first_promoted(
    sample: Sequence[PatientScore],
    generator: np.random.Generator,
    *,
    most: int,
    delta: float,
    policy: Policy,
    resamples: int,
) -> int:
    """Return the number, from 1, of the first candidate that is promoted; else `most` + 1."""
    for number in range(1, most + 1):
        compared = _compare(
            _exchange(sample, generator),
            min_group=policy.min_group, seed=int(generator.integers(2**31)), resamples=resamples,
        )  # fmt: skip
        if verdict(compared, delta=delta, policy=policy) == "promote":
            return number
    return most + 1


def _resample(
    scores: Sequence[PatientScore], count: int, generator: np.random.Generator
) -> list[PatientScore]:
    return [scores[i] for i in generator.integers(0, len(scores), size=count)]


def _exchange(scores: Sequence[PatientScore], generator: np.random.Generator) -> list[PatientScore]:
    """Give the two scores of each patient to the two models at random."""
    exchanged = generator.random(len(scores)) < 0.5
    return [
        replace(score, candidate=score.candidate - 2 * _difference(score)) if other else score
        for score, other in zip(scores, exchanged, strict=True)
    ]


def _difference(score: PatientScore) -> float:
    assert score.difference is not None, f"{score.patient} has one score; expected two"
    return score.difference


def _shift(difference: Difference, delta: float) -> Difference:
    """Return the difference if the candidate were worse by `delta` on every patient."""
    low, high = (None if end is None else end - delta for end in (difference.low, difference.high))
    return Difference(difference.mean - delta, low, high, difference.patients)


def _fell(difference: Difference, margin: float) -> bool:
    """Apply the rule of `comparison.GroupDifference` to a shifted difference."""
    return difference.mean < -margin and (difference.high or 0) < 0


def _estimate(count: int, simulations: int) -> Estimate:
    share = count / simulations
    return Estimate(share, float(np.sqrt(share * (1 - share) / simulations)))


def _add_power(row: PowerRow, other: PowerRow) -> PowerRow:
    return replace(
        row,
        promoted=row.promoted + other.promoted,
        rejected=row.rejected + other.rejected,
        simulations=row.simulations + other.simulations,
    )


def _add_looks(row: RepeatedRow, other: RepeatedRow) -> RepeatedRow:
    return replace(
        row,
        promoted=row.promoted + other.promoted,
        simulations=row.simulations + other.simulations,
    )
