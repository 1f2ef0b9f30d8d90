"""Measure the error rates of the gate from two models that were trained alike.

Reads two tables of the same patients, simulates test sets, and writes a table and a plot.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.adapters.process import progress
from pipeline.adapters.storage import csv_files, files
from pipeline.domain import gate_power
from pipeline.domain.comparison import PatientScore
from pipeline.domain.gate import Policy
from pipeline.domain.gate_power import Estimate, PowerRow, RepeatedRow
from pipeline.domain.summaries import GROUPINGS
from pipeline.errors import GliaflowError

FEWEST_REPLICATES = 5
_PART = 100  # simulations per unit of work
_LOOKS_PART = 20  # of repeated looks: each is up to 50 decisions
_TYPICAL_TEST = 17  # patients: 20 % of the real data set


@dataclass(frozen=True)
class GatePower:
    """Measured error rates.

    replicates: number of patients whose scores were resampled.
    spread: standard deviation of their differences, in Tversky.
    worse: candidates beyond the margin; better: equal or better ones.
    """

    policy: Policy
    replicates: int
    spread: float
    rows: tuple[PowerRow, ...]
    repeated: tuple[RepeatedRow, ...]

    @property
    def worse(self) -> list[PowerRow]:
        """Rows in which promotion is an error."""
        return [row for row in self.rows if row.delta > self.policy.margin]

    @property
    def better(self) -> list[PowerRow]:
        """Rows in which rejection is an error."""
        return [row for row in self.rows if row.delta <= 0]

    def as_json(self) -> dict[str, Any]:
        """Return the rates as values that JSON can hold."""
        return {
            "margin": self.policy.margin,
            "group_margin": self.policy.group_margin,
            "min_group": self.policy.min_group,
            "replicates": self.replicates,
            "spread": round(self.spread, 6),
            "rows": [_power_row(row) for row in self.rows],
            "repeated": [_repeated_row(row) for row in self.repeated],
        }


def read_pairs(first: Path, second: Path) -> list[PatientScore]:
    """Pair the test Tversky of two models by patient; the first stands for the champion.

    Args:
        first, second: patients.csv of `gliaflow cross-validate` or of the stage `evaluate`.

    Raises:
        GliaflowError: a table is unfit, or they differ in their patients or not in their scores.
    """
    champion, candidate = _read_scores(first), _read_scores(second).tversky
    missing = sorted(set(champion.index) ^ set(candidate.index))
    if missing:
        raise GliaflowError(
            f"{len(missing)} patients are in only one of {first} and {second}, such as "
            f"{missing[0]}; expected the same patients in both: score both models on the same scans"
        )
    groupings = {name: column for name, column in GROUPINGS.items() if column in champion}
    pairs = [
        PatientScore(
            str(patient),
            float(candidate[str(patient)]),
            float(row.tversky),
            {name: str(row[column]) for name, column in groupings.items()},
        )
        for patient, row in champion.iterrows()
    ]
    if not any(pair.difference for pair in pairs):
        raise GliaflowError(
            f"{first} and {second} hold the same scores; expected two trainings: run the second "
            "with another seed, as `gliaflow cross-validate --set train.seed=2`"
        )
    return pairs


def measure(
    replicates: Sequence[PatientScore],
    policy: Policy,
    *,
    patients: Sequence[int] = gate_power.PATIENTS,
    simulations: int,
    seed: int,
) -> GatePower:
    """Simulate test sets of each size, in parallel, with progress.

    Repeated looks are simulated for the size that is nearest to 17 patients.

    Args:
        patients: sizes n of simulated test sets, each at least 2.
        simulations: per size, rounded up to hundreds; a fifth of them of repeated looks.
        seed: equal values give equal results on any number of cores.
    """
    parts = -(-simulations // _PART)
    tasks = [(n, seed + part) for part in range(parts) for n in sorted(set(patients))]
    simulate = partial(_simulate, replicates=replicates, policy=policy)
    rows = progress.map_parallel(simulate, tasks, workers=0, label="simulating test sets")
    powers = gate_power.pool_power(row for part in rows for row in part)
    typical = min(patients, key=lambda n: abs(n - _TYPICAL_TEST))
    tasks = [(typical, seed + part) for part in range(parts)]
    look = partial(_look, replicates=replicates, policy=policy)
    looks = progress.map_parallel(look, tasks, workers=0, label="simulating repeated looks")
    repeated = gate_power.pool_repeated(row for part in looks for row in part)
    differences = np.array([pair.difference for pair in replicates], dtype=np.float64)
    spread = float(differences.std(ddof=1))
    return GatePower(policy, len(replicates), spread, tuple(powers), tuple(repeated))


def write(result: GatePower, folder: Path) -> list[Path]:
    """Write gate-power.csv, gate-power-repeated.csv and gate-power.svg; return their paths."""
    table, repeated, plot = (
        folder / name for name in ("gate-power.csv", "gate-power-repeated.csv", "gate-power.svg")
    )
    csv_files.write_table(table, pd.DataFrame(map(_power_row, result.rows)))
    csv_files.write_table(repeated, pd.DataFrame(map(_repeated_row, result.repeated)))
    files.write_text(plot, power_svg(result))
    return [table, repeated, plot]


def power_svg(result: GatePower) -> str:
    """Plot the shares of promotion and rejection by true difference, a line per test set size."""
    import matplotlib
    from matplotlib.figure import Figure

    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gate-power"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, name in zip(
            figure.subplots(1, 2, sharey=True), ("promote", "reject"), strict=True
        ):
            _draw(axes, result, name)
        figure.savefig(stream, format="svg", metadata=no_metadata)
    return stream.getvalue()


def _draw(axes: Any, result: GatePower, name: str) -> None:
    from matplotlib import colormaps

    sizes = sorted({row.patients for row in result.rows})
    for size, colour in zip(
        sizes, colormaps["viridis_r"](np.linspace(0.15, 1, len(sizes))), strict=True
    ):
        rows = [row for row in result.rows if row.patients == size]
        estimates = [getattr(row, name) for row in rows]
        axes.errorbar(
            [row.delta for row in rows], [100 * e.share for e in estimates],
            yerr=[100 * e.error for e in estimates], color=colour, marker="o", markersize=3,
            label=f"{size} patients",
        )  # fmt: skip
    axes.axvline(
        result.policy.margin, color="#20262d", linestyle=":", linewidth=0.8, label="gate.margin"
    )
    axes.set_title({"promote": "promoted", "reject": "rejected"}[name], fontsize=11)
    axes.set_xlabel("true fall of the mean Tversky")
    axes.set_ylim(-3, 103)
    axes.spines[["top", "right"]].set_visible(False)
    if name == "promote":
        axes.set_ylabel("% of simulated test sets")
        axes.legend(frameon=False)


def _simulate(
    task: tuple[int, int], *, replicates: Sequence[PatientScore], policy: Policy
) -> list[PowerRow]:
    patients, seed = task
    samples = gate_power.compare_samples(
        replicates, patients=patients, min_group=policy.min_group, simulations=_PART, seed=seed
    )
    deltas = sorted({*gate_power.DELTAS, 2 * policy.margin})
    return gate_power.power(samples, patients=patients, deltas=deltas, policy=policy)


def _look(
    task: tuple[int, int], *, replicates: Sequence[PatientScore], policy: Policy
) -> list[RepeatedRow]:
    patients, seed = task
    return gate_power.repeated_looks(
        replicates, patients=patients, policy=policy, simulations=_LOOKS_PART, seed=seed
    )


def _read_scores(path: Path) -> pd.DataFrame:
    """Read the rows of test patients, indexed by patient."""
    if not path.is_file():
        raise GliaflowError(
            f"{path} does not exist; expected a patients.csv, as `gliaflow cross-validate` writes it"
        )
    table = csv_files.read_table(path)
    for column in ("patient", "tversky"):
        if column not in table:
            raise GliaflowError(
                f"{path} has no column {column}; expected a patients.csv, as "
                "`gliaflow cross-validate` writes it"
            )
    if "split" in table:
        table = table[table.split == "test"]
    problem = next(_problems(table), None)
    if problem:
        raise GliaflowError(f"{path}: {problem}")
    return table.set_index("patient").sort_index()


def _problems(table: pd.DataFrame) -> Iterator[str]:
    if len(table) < FEWEST_REPLICATES:
        yield (
            f"{len(table)} test patients are too few to measure noise; expected at least "
            f"{FEWEST_REPLICATES}: use a cross-validation, which scores all patients"
        )
    values = pd.to_numeric(table.tversky, errors="coerce")
    for patient, value in table[~values.between(0, 1)][["patient", "tversky"]].to_numpy():
        yield f"the Tversky of {patient} is {value}; expected a number in [0, 1]"
    for patient in table.patient[table.patient.duplicated()]:
        yield f"{patient} is listed twice; expected one row per patient"


def _power_row(row: PowerRow) -> dict[str, Any]:
    shares = {
        "promote": row.promote,
        "reject": row.reject,
        "inconclusive": row.inconclusive,
    }
    return {
        "patients": row.patients,
        "delta": round(row.delta, 6),
        **_columns(shares),
        "simulations": row.simulations,
    }


def _repeated_row(row: RepeatedRow) -> dict[str, Any]:
    return {
        "patients": row.patients,
        "candidates": row.candidates,
        "delta": round(row.delta, 6),
        **_columns({"any_promoted": row.any_promoted}),
        "simulations": row.simulations,
    }


def _columns(shares: dict[str, Estimate]) -> dict[str, float]:
    columns: dict[str, float] = {}
    for name, estimate in shares.items():
        columns |= {name: round(estimate.share, 6), f"{name}_error": round(estimate.error, 6)}
    return columns
