"""`gliaflow registry`, `gliaflow promote` and `gliaflow rollback`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from gliaflow import printing
from gliaflow.app import Json, app

By = Annotated[str | None, typer.Option(help="Name of the person who answers for it.")]


@app.command(epilog="Example: gliaflow registry --at 2026-05-12")
def registry(
    as_json: Json = False,
    at: Annotated[
        str | None,
        typer.Option(
            help="Show which version was the champion then: a date (its end, UTC) or an ISO 8601 time."
        ),
    ] = None,
) -> None:
    """List the versions of the model, the champion, and every decision."""
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app import registry_report
    from pipeline.app.open_registry import open_registry

    when = None if at is None else registry_report.parse_time(at)
    store = open_registry(find_project(Path.cwd()))
    store.settle_last()
    versions, decisions = store.versions(), store.decisions()
    if when is not None:
        answer = registry_report.champion_then(decisions, when)
        typer.echo(json.dumps(answer, indent=2) if as_json else printing.champion_then(answer))
    elif as_json:
        report = registry_report.as_json(versions, decisions)
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    elif versions:
        printing.print_registry(versions, decisions)
        for sentence in registry_report.warnings(versions, decisions):
            typer.echo(sentence)
    else:
        typer.echo("No version is registered yet; `gliaflow run` registers the first.")


@app.command(epilog='Example: gliaflow promote 3 --override "agreed on 12 May" --by "Dr Ada Roe"')
def promote(
    version: Annotated[int, typer.Argument(help="Number of the version.", min=1)],
    override: Annotated[
        str | None,
        typer.Option(help="Reason to promote against the gate; recorded for good. Needs --by."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Name of the person who answers for it. Without --override it approves a version "
            "whose verdict was inconclusive."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Only judge: move and record nothing; exit code 1 unless it may pass."
        ),
    ] = False,
) -> None:
    """Make a version the champion, if the gate allows it or a person decides."""
    if override is not None and by is None:
        raise typer.BadParameter("--override REASON needs --by NAME")
    if check and (override or by):
        raise typer.BadParameter("--check goes with neither --override nor --by")
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app.promotion import open_publisher

    publisher = open_publisher(find_project(Path.cwd()))
    if check:
        decision = publisher.judge_again(publisher.registry.version(version))
        printing.print_verdict(decision)
        raise typer.Exit(0 if decision.verdict == "promote" else 1)
    printing.print_decision(publisher.promote_version(version, override=override, by=by))


@app.command(epilog='Example: gliaflow rollback --by "Dr Ada Roe" --reason "misses small tumours"')
def rollback(
    by: By = None,
    reason: Annotated[str | None, typer.Option(help="Why; recorded for good.")] = None,
) -> None:
    """Put the champion before into use again; the present one is never promoted by itself."""
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app.promotion import open_publisher

    publisher = open_publisher(find_project(Path.cwd()))
    printing.print_decision(publisher.rollback(by=by, why=reason))
