"""`gliaflow inbox`: batches of new scans and their state."""

import json
from pathlib import Path

import typer

from gliaflow import printing
from gliaflow.app import Json, app


@app.command(epilog="Example: gliaflow inbox --json")
def inbox(as_json: Json = False) -> None:
    """List the batches of the inbox, their state, and patients in quarantine."""
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app import inbox_status

    project = find_project(Path.cwd())
    rows = inbox_status.batch_rows(project)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        printing.print_batches(rows)
    else:
        source = project.params.watch.source
        typer.echo(f"No batches yet; drop scans into {source}/<batch>/<patient>/*.tif.")
