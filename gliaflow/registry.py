"""`gliaflow registry` and `gliaflow promote`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from gliaflow import printing
from gliaflow.app import Json, app


@app.command(epilog="Example: gliaflow registry --json")
def registry(as_json: Json = False) -> None:
    """List the versions of the model, the champion, and every decision."""
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app import registry_report
    from pipeline.app.open_registry import open_registry

    store = open_registry(find_project(Path.cwd()))
    versions, decisions = store.versions(), store.decisions()
    if as_json:
        report = registry_report.as_json(versions, decisions)
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    elif versions:
        printing.print_registry(versions, decisions)
    else:
        typer.echo("No version is registered yet; `gliaflow run` registers the first.")


@app.command(epilog='Example: gliaflow promote 3 --override "agreed on 12 May" --by "Dr Ada Roe"')
def promote(
    version: Annotated[int, typer.Argument(help="Number of the version.", min=1)],
    override: Annotated[
        str | None,
        typer.Option(help="Reason to promote against the gate; recorded for good."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Name of the person who answers for the override.")
    ] = None,
) -> None:
    """Make a version the champion, if the gate allows it."""
    if (override is None) != (by is None):
        raise typer.BadParameter("--override REASON and --by NAME go together")
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app.publish import open_publisher

    publisher = open_publisher(find_project(Path.cwd()))
    printing.print_decision(publisher.promote_version(version, override=override, by=by))
