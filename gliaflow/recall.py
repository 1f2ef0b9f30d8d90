"""`gliaflow recall`: withdraw a patient."""

from pathlib import Path
from typing import Annotated

import typer

from gliaflow import printing
from gliaflow.app import app


@app.command(epilog='Example: gliaflow recall TCGA_CS_4941_19960909 --reason "consent withdrawn"')
def recall(
    patient: Annotated[
        str | None, typer.Argument(help="Name of the patient, as in data/manifest.csv.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; recorded for good.")] = "no reason was given",
    by: Annotated[str | None, typer.Option(help="Name of the person who answers for it.")] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit code 1 while the champion holds a recalled patient."),
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Only list what the patient touched; change nothing.")
    ] = False,
) -> None:
    """Withdraw a patient: list what they touched, and keep them out of every later build."""
    if (patient is None) != check:
        raise typer.BadParameter("give a PATIENT, or --check alone")
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app import recall as use_case
    from pipeline.app.open_registry import open_registry

    project = find_project(Path.cwd())
    registry = open_registry(project)
    if patient is None:
        faults = use_case.faults(project, registry)
        typer.echo("\n".join(faults) or "No champion holds a recalled patient.")
        raise typer.Exit(1 if faults else 0)
    if show:
        printing.print_trace(use_case.trace(project, registry, patient))
        return
    printing.print_trace(use_case.recall(project, registry, patient, by=by, why=reason))
    typer.echo(
        f"{patient} is on {project.path('recalled').relative_to(project.root)}: commit that file. "
        "`gliaflow run` builds a model without this patient; delete the folders above once it is "
        "promoted, and `dvc gc` removes their copies from the cache."
    )
