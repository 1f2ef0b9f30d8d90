"""Print results in the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pipeline.adapters.tracking.versions import Version
    from pipeline.app.cross_validation import CrossValidation
    from pipeline.app.recall import Trace
    from pipeline.domain.decisions import DecisionRecord


ANSWERS = {"passed": "passed", "failed": "FAILED", "cannot tell": "?     "}


def print_decision(decision: "DecisionRecord") -> None:
    """Print the headline of a decision and its reasons."""
    typer.echo(decision.headline)
    _print_reasons(decision)
    if decision.verdict == "inconclusive":
        typer.echo(f"  Approve it with `gliaflow promote {decision.candidate.version} --by NAME`.")


def print_verdict(decision: "DecisionRecord") -> None:
    """Print what the gate would decide, and its reasons."""
    typer.echo(f"The gate's verdict on version {decision.candidate.version}: {decision.verdict}.")
    _print_reasons(decision)


def _print_reasons(decision: "DecisionRecord") -> None:
    for reason in decision.reasons:
        typer.echo(f"  {ANSWERS[reason.answer]}  {reason.sentence}")


def champion_then(answer: "Mapping[str, Any]") -> str:
    """Return which version was the champion at a time, as a sentence."""
    decision = answer["decision"]
    if decision is None:
        return f"There was no champion at {answer['at']}."
    why = f", {decision['why']}" if decision["why"] else ""
    return (
        f"At {answer['at']} the champion was version {answer['champion']}, since decision "
        f"{decision['number']} of {decision['when']} ({decision['action']} by {decision['who']}{why})."
    )


def print_registry(versions: "Sequence[Version]", decisions: "Sequence[DecisionRecord]") -> None:
    """Print a table of versions and a table of decisions."""
    rows = []
    for version in versions:
        score = version.optional_tversky
        rows.append(
            (
                str(version.version),
                ", ".join((*version.aliases, *(["withdrawn"] if version.withdrawn else []))),
                version.digest[:12],
                str(score) if score else "?",
                str(score.patients) if score else "?",
            )
        )
    print_table(("version", "alias", "digest", "test Tversky (95 %)", "patients"), rows)
    columns = ("number", "when", "version", "action", "verdict", "champion", "who", "why")
    print_table(columns, map(_decision_row, decisions))


def print_trace(trace: "Trace") -> None:
    """Print everything that a patient touched."""
    typer.echo(f"{trace.patient}: {', '.join(trace.folders) or 'no files in this checkout'}")
    typer.echo(f"  split here: {trace.split or 'none'}")
    for version in trace.versions:
        typer.echo(f"  {version}")
    numbers = ", ".join(map(str, trace.decisions))
    typer.echo(f"  decisions: {numbers or 'none'}")


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
    print_table(("fold", "patients", "slices", "Dice", "Tversky", "seed Tversky", "epochs"), rows)
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
    print_table(("measure", "by patient", "by slice", "leakage"), rows)


def print_batches(rows: Iterable[Mapping[str, str]]) -> None:
    """Print a table of the batches in the inbox."""
    print_table(
        ("batch", "state", "when", "note", "quarantined"),
        (
            (row["batch"], row["state"], row["when"][:16], row["note"], row["kept_out"])
            for row in rows
        ),
    )


def _decision_row(decision: "DecisionRecord") -> tuple[str, ...]:
    before, after = decision.champion.before, decision.champion.after
    failed = ", ".join(reason.rule for reason in decision.reasons if not reason.passed)
    return (
        str(decision.number),
        decision.when[:16],
        str(decision.candidate.version),
        decision.action,
        decision.verdict,
        f"{before or 'none'} -> {after or 'none'}",
        decision.who,
        decision.why or (f"not passed: {failed}" if failed else "all rules passed"),
    )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of text as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
