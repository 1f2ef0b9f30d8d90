"""`gliaflow verify`, `gliaflow restore` and `gliaflow reproduce`: what a version was made of."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gliaflow.app import Json, app, say

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


@app.command(epilog="Example: gliaflow reproduce 3 --replicates 2")
def reproduce(
    version: Number,
    replicates: Annotated[
        int,
        typer.Option(
            help="Trainings with other seeds that measure noise if the weights differ.", min=0
        ),
    ] = 2,
    as_json: Json = False,
) -> None:
    """Rebuild a version from scratch in a temporary clone, and compare.

    Exit code 1 if the outcome is different.
    """
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app import reproduction
    from pipeline.app.open_registry import open_registry

    project = find_project(Path.cwd())
    registry = open_registry(project)
    result = reproduction.reproduce(
        project,
        registry,
        registry.version(version),
        replicates=replicates,
        say=(lambda _: None) if as_json else say,
    )
    if as_json:
        typer.echo(json.dumps(asdict(result), indent=2))
    else:
        for name, same in result.parts.items():
            typer.echo(f"{name:8} {'same' if same else 'different'}")
        noise = ", ".join(f"{value:+.4f}" for value in result.noise)
        typer.echo(
            f"Version {version} rebuilt: {result.verdict}. Test Tversky differs by "
            f"{result.difference} on {result.difference.patients} patients"
            + (f"; replicates by {noise}." if noise else ".")
        )
    raise typer.Exit(1 if result.verdict == "different" else 0)
