from dataclasses import replace

import numpy as np
import pytest

from pipeline.domain import gate_power
from pipeline.domain.comparison import PatientScore, group_differences, paired_difference
from pipeline.domain.gate import Evidence, Policy, decide
from pipeline.domain.gate_power import Compared, PowerRow, RepeatedRow

POLICY = Policy(
    min_tversky=0.0,
    min_tversky_low=0.0,
    min_patients=1,
    margin=0.0625,
    group_margin=0.125,
    min_group=3,
    test_budget=20,
    approval="inconclusive",
)


def replicates(differences: list[float], sites: str = "A") -> list[PatientScore]:
    """Return patients whom the champion scores 0.5, at the given sites in turn."""
    return [
        PatientScore(f"P{i}", 0.5 + difference, 0.5, {"site": sites[i % len(sites)]})
        for i, difference in enumerate(differences)
    ]


def normal(spread: float, *, count: int = 60, seed: int = 1) -> list[PatientScore]:
    noise = np.random.default_rng(seed).normal(0, spread, size=count)
    return replicates([float(value) for value in noise], sites="ABC")


def rates(
    pool: list[PatientScore],
    *deltas: float,
    patients: int = 8,
    simulations: int = 20,
    seed: int = 1,
) -> list[PowerRow]:
    samples = gate_power.compare_samples(
        pool, patients=patients, min_group=POLICY.min_group, simulations=simulations, seed=seed,
        resamples=300,
    )  # fmt: skip
    return gate_power.power(samples, patients=patients, deltas=deltas, policy=POLICY)


def looks(pool: list[PatientScore], *, simulations: int = 10, seed: int = 1) -> list[RepeatedRow]:
    return gate_power.repeated_looks(
        pool, patients=8, policy=POLICY, simulations=simulations, seed=seed, candidates=(1, 2, 8),
        resamples=300,
    )  # fmt: skip


# --- what is simulated ----------------------------------------------------------------------


def test_the_two_scores_of_a_patient_are_exchanged_at_random():
    samples = gate_power.compare_samples(
        replicates([0.25]), patients=4, min_group=3, simulations=30, seed=1, resamples=50
    )
    means = {sample.difference.mean for sample in samples}
    assert means <= {-0.25, -0.125, 0.0, 0.125, 0.25}
    assert min(means) < 0 < max(means)


@pytest.mark.parametrize("spread", [0.02, 0.1])
def test_a_verdict_is_that_of_the_gate_on_the_shifted_scores(spread):
    verdicts = set()
    for seed in range(12):
        scores = normal(spread, count=12, seed=seed)
        overall = paired_difference([score.difference for score in scores], seed=seed)
        groups = group_differences(scores, min_patients=3, margin=1.0, seed=seed)
        for delta in (-0.1, 0.0, 0.04, 0.09, 0.2):
            simulated = gate_power.verdict(
                Compared(overall, tuple(groups)), delta=delta, policy=POLICY
            )
            worse = [replace(score, candidate=score.candidate - delta) for score in scores]
            evidence = Evidence(worse, True, [], [], looks=1, resamples=10, seed=seed)
            unbounded = replace(POLICY, min_tversky=-9.0, min_tversky_low=-9.0)
            assert simulated == decide(evidence, policy=unbounded).verdict
            verdicts.add(simulated)
    assert verdicts >= {"promote", "reject"}
    assert "inconclusive" in verdicts or spread < 0.1


def test_patients_bring_their_groups():
    samples = gate_power.compare_samples(
        replicates([0.125] * 6, sites="AB"), patients=40, min_group=3, simulations=2, seed=1,
        resamples=50,
    )  # fmt: skip
    for sample in samples:
        assert [group.group for group in sample.groups] == ["A", "B"]
        assert sum(group.difference.patients for group in sample.groups) == 40


# --- rates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delta", "promoted", "rejected"),
    [(-0.25, 20, 0), (0.0, 20, 0), (0.03125, 20, 0), (0.125, 0, 20), (0.5, 0, 20)],
)
def test_without_noise_the_verdict_is_always_right(delta, promoted, rejected):
    assert rates(replicates([0.0] * 6), delta) == [PowerRow(8, delta, promoted, rejected, 20)]


def test_a_group_that_falls_rejects_whatever_the_margin():
    samples = gate_power.compare_samples(
        normal(0.01), patients=30, min_group=3, simulations=20, seed=1, resamples=300
    )
    policy = replace(POLICY, margin=1.0)
    fell, held = gate_power.power(samples, patients=30, deltas=(0.25, 0.0), policy=policy)
    assert (fell.rejected, held.promoted) == (20, 20)


def test_noise_beyond_the_margin_leaves_few_patients_inconclusive():
    (row,) = rates(normal(0.2), 0.0, patients=5, simulations=100)
    assert row.inconclusive.share > 0.5


def test_more_patients_make_more_verdicts_right():
    pool = normal(0.1)
    few, many = (rates(pool, 0.0, 0.125, patients=n, simulations=60) for n in (6, 40))
    assert many[0].promoted > few[0].promoted
    assert many[1].rejected > few[1].rejected


def test_a_candidate_at_the_margin_is_promoted_in_about_one_of_forty_test_sets():
    (row,) = rates(normal(0.05), POLICY.margin, patients=17, simulations=300)
    assert row.promote.share <= 0.06


def test_equal_seeds_give_equal_rates():
    assert rates(normal(0.1), 0.0, 0.05) == rates(normal(0.1), 0.0, 0.05)
    assert rates(normal(0.1), 0.05, simulations=100) != rates(
        normal(0.1), 0.05, simulations=100, seed=2
    )


# --- repeated looks -------------------------------------------------------------------------


def test_without_noise_no_number_of_looks_promotes_a_worse_candidate():
    rows = looks(replicates([0.0] * 6))
    assert [row.promoted for row in rows] == [0, 0, 0]
    assert {row.delta for row in rows} == {POLICY.margin + gate_power.JUST_OVER}


def test_more_candidates_on_the_same_patients_make_a_false_promotion_likelier():
    shares = [row.any_promoted.share for row in looks(normal(0.1), simulations=80)]
    assert shares == sorted(shares)
    assert shares[2] > shares[0]


def test_equal_seeds_give_equal_looks():
    assert looks(normal(0.1)) == looks(normal(0.1))


# --- counts ---------------------------------------------------------------------------------


def test_shares_have_a_monte_carlo_standard_error():
    row = PowerRow(17, 0.05, promoted=50, rejected=20, simulations=100)
    assert (row.promote.share, row.promote.error) == (0.5, 0.05)
    assert (row.reject.share, row.reject.error) == pytest.approx((0.2, 0.04))
    assert row.inconclusive.share == pytest.approx(0.3)
    assert str(row.promote) == "50.0% ± 5.0%"


def test_rows_of_the_same_size_and_difference_are_added():
    rows = [PowerRow(17, 0.1, 1, 2, 5), PowerRow(5, 0.1, 1, 1, 5), PowerRow(17, 0.1, 2, 2, 5)]
    assert gate_power.pool_power(rows) == [PowerRow(5, 0.1, 1, 1, 5), PowerRow(17, 0.1, 3, 4, 10)]


def test_looks_of_the_same_size_and_number_are_added():
    rows = [RepeatedRow(17, 5, 0.1, 1, 5), RepeatedRow(17, 1, 0.1, 0, 5)] * 2
    assert gate_power.pool_repeated(rows) == [
        RepeatedRow(17, 1, 0.1, 0, 10),
        RepeatedRow(17, 5, 0.1, 2, 10),
    ]
