"""Write the results of a cross-validation: a table of patients, metrics, and an HTML page."""

from pathlib import Path
from typing import Any, cast

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.report import html_page, run_settings
from pipeline.adapters.report.selection import patient_figure
from pipeline.adapters.storage import csv_files, files, json_files, stage_tables
from pipeline.app.cross_validation import CrossValidation, FoldPlan, fold_paths
from pipeline.params import Params

SLICES_SHOWN = 3  # per patient: the page shows every patient


def write(project: Project, params: Params, plan: FoldPlan, result: CrossValidation) -> Path:
    """Write patients.csv, metrics.json and index.html to `reports/cross-validation/`.

    The page shows scans: keep it out of repositories.

    Args:
        params: what the folds were run with; may differ from the project's.

    Returns:
        Path of the page.
    """
    folder = project.path("index").with_name("cross-validation")
    csv_files.write_table(folder / "patients.csv", result.patients)
    json_files.write_json(folder / "metrics.json", result.metrics)
    page = folder / "index.html"
    shown = result.patients.assign(split=[f"fold {fold}" for fold in result.patients.fold])
    history = csv_files.read_table(fold_paths(project, params, plan)[1]["history"])
    files.write_text(
        page,
        html_page.render(
            metrics=result.metrics,
            patients=shown,
            history=history.iloc[:0],
            quarantine=csv_files.read_table(project.path("quarantine")),
            figures=_figures(project, params, plan, result),
            counts={},
            settings=run_settings.describe(params) | {"unit": plan.unit, "folds": str(plan.folds)},
            folds=cast(list[dict[str, Any]], result.folds.to_dict("records")),
        ),
    )
    return page


def _figures(
    project: Project, params: Params, plan: FoldPlan, result: CrossValidation
) -> list[html_page.PatientFigure]:
    accepted = stage_tables.accepted_slices(project.path("manifest"), project.path("quarantine"))
    paths, figures = fold_paths(project, params, plan), []
    for fold in plan.chosen():
        rows = stage_tables.join_splits(accepted, paths[fold]["splits"])
        patients = result.patients[result.patients.fold == fold]
        figures += [
            patient_figure(
                row, f"fold {fold}", SLICES_SHOWN, rows, project.path("scans"),
                paths[fold]["predicted"],
            )
            for _, row in patients.iterrows()
        ]  # fmt: skip
    return figures
