"""`gliaflow cross-validate` and `gliaflow leakage`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gliaflow import printing
from gliaflow.app import app, say

Folds = Annotated[int, typer.Option(help="Number of folds.", min=2, max=50)]
First = Annotated[
    int | None, typer.Option(help="Run only the first folds; a later call adds the others.", min=1)
]
Values = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a value of params.yaml, as train.epochs=20."),
]


@app.command(epilog="Example: gliaflow cross-validate --set train.image_size=128 --first 2")
def cross_validate(
    folds: Folds = 5,
    first: First = None,
    unit: Annotated[
        str, typer.Option(help="patient, or slice: the published protocol, which leaks patients.")
    ] = "patient",
    values: Values = None,
) -> None:
    """Score every patient once, by a network that never saw it; resumes after an interruption."""
    if unit not in ("patient", "slice"):
        raise typer.BadParameter("--unit is patient or slice")
    from pipeline.app import cross_validation, cross_validation_page

    project, params = _prepare(values)
    plan = cross_validation.FoldPlan(unit, folds, min(first or folds, folds))  # type: ignore[arg-type] # checked above
    result = cross_validation.run_folds(project, params, plan, say=say)
    page = cross_validation_page.write(project, params, plan, result)
    printing.print_folds(result)
    typer.echo(f"Open {page.relative_to(project.root)} in a browser.")


@app.command(epilog="Example: gliaflow leakage --first 1")
def leakage(folds: Folds = 5, first: First = None, values: Values = None) -> None:
    """Measure by how much the score rises if slices, not patients, are split."""
    from pipeline.app import leakage as measurement

    project, params = _prepare(values)
    count = min(first or folds, folds)
    printing.print_leakage(measurement.measure(project, params, count=folds, first=count, say=say))
    typer.echo("Written: reports/leakage.json; the report shows it beside the decision.")


def _prepare(values: list[str] | None) -> tuple[Any, Any]:
    """Read the checkout, apply `--set`, and bring the scans up to date."""
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app import cross_validation

    project = find_project(Path.cwd())
    params = cross_validation.override_params(project.params, values or [])
    cross_validation.update_inputs(project, say=say)
    return project, params
