"""`gliaflow verify` and `gliaflow restore`: what a version was made of."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gliaflow.app import Json, app

Number = Annotated[int, typer.Argument(help="Number of the version.", min=1)]


@app.command(epilog="Example: gliaflow verify 3")
def verify(version: Number, as_json: Json = False) -> None:
    """Hash scans, manifest, split, parameters, code and weights of a version again.

    Exit code 1 if any is different or missing.
    """
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app import verification
    from pipeline.app.open_registry import open_registry

    project = find_project(Path.cwd())
    registry = open_registry(project)
    parts = verification.verify(project, registry, registry.version(version))
    if as_json:
        typer.echo(json.dumps([asdict(part) for part in parts], indent=2))
    else:
        for part in parts:
            typer.echo(f"{part.name:9} {part.state:10} {part.detail}")
    raise typer.Exit(0 if all(part.state == "same" for part in parts) else 1)


@app.command(epilog="Example: gliaflow restore 3")
def restore(version: Number) -> None:
    """Bring data, parameters and model of a version back into a clean work tree."""
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app import restoration
    from pipeline.app.open_registry import open_registry

    project = find_project(Path.cwd())
    registry = open_registry(project)
    typer.echo(restoration.restore(project, registry, registry.version(version)))
