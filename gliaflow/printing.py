"""Print results in the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pipeline.adapters.tracking.registry import Version
    from pipeline.app.cross_validation import CrossValidation
    from pipeline.domain.decisions import DecisionRecord


def print_decision(decision: "DecisionRecord") -> None:
    """Print the headline of a decision and its reasons."""
    typer.echo(decision.headline)
    for reason in decision.reasons:
        typer.echo(f"  {'passed' if reason.passed else 'FAILED'}  {reason.sentence}")


def print_registry(versions: "Sequence[Version]", decisions: "Sequence[DecisionRecord]") -> None:
    """Print a table of versions and a table of decisions."""
    rows = []
    for version in versions:
        score = version.optional_tversky
        rows.append(
            (
                str(version.version),
                ", ".join(version.aliases),
                version.digest[:12],
                str(score) if score else "?",
                str(score.patients) if score else "?",
            )
        )
    _table(("version", "alias", "digest", "test Tversky (95 %)", "patients"), rows)
    _table(("when", "version", "verdict", "champion", "who", "why"), map(_decision_row, decisions))


def print_folds(result: "CrossValidation") -> None:
    """Print a table of folds, and the scores over all patients."""
    rows = [
        (
            *(str(fold[key]) for key in ("fold", "patients", "slices")),
            *(f"{fold[key]:.4f}" for key in ("dice", "tversky", "seed_tversky")),
            str(fold["epochs"]),
        )
        for fold in result.folds.to_dict("records")
    ]
    _table(("fold", "patients", "slices", "Dice", "Tversky", "seed Tversky", "epochs"), rows)
    test = result.metrics["test"]
    for name, label in (("dice", "Dice"), ("tversky", "Tversky")):
        score = test[name]
        typer.echo(
            f"{label}: mean {score['mean']:.4f} ({score['low']:.4f} to {score['high']:.4f}), "
            f"median {score['median']:.4f}, {score['patients']} patients"
        )
    if "false_alarms" in test:
        share = test["false_alarms"]
        typer.echo(
            f"False positives on {share['mean']:.1%} of {share['slices']} tumour-free slices"
        )


def print_leakage(result: Mapping[str, Any]) -> None:
    """Print the scores by patient and by slice, and their difference."""
    rows = []
    for key in ("dice", "tversky", "seed_tversky"):
        means = (f"{result[unit][key]['mean']:.4f}" for unit in ("patient", "slice"))
        rows.append((key.replace("_", " "), *means, f"{result['flattered'][key]:+.4f}"))
    _table(("measure", "by patient", "by slice", "leakage"), rows)


def print_batches(rows: Iterable[Mapping[str, str]]) -> None:
    """Print a table of the batches in the inbox."""
    _table(
        ("batch", "state", "when", "note", "quarantined"),
        (
            (row["batch"], row["state"], row["when"][:16], row["note"], row["kept_out"])
            for row in rows
        ),
    )


def _decision_row(decision: "DecisionRecord") -> tuple[str, ...]:
    before, after = decision.champion.before, decision.champion.after
    failed = [reason.sentence for reason in decision.reasons if not reason.passed]
    return (
        decision.when[:16],
        str(decision.candidate.version),
        decision.verdict,
        f"{before or 'none'} -> {after or 'none'}",
        decision.who,
        decision.override or " ".join(failed) or "all rules passed",
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
