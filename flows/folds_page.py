"""What a cross-validation leaves: a table of patients, their scores, and a page to look at."""

from pathlib import Path

from flows.folds import Outcome, Plan, kept
from pipeline.adapters import files, report, tables
from pipeline.adapters.project import Project
from pipeline.params import Params
from pipeline.stages.report import picture, settings_shown

PICTURED_SLICES = 3  # of each patient: the page holds them all


def write(own: Project, params: Params, plan: Plan, outcome: Outcome, into: Path) -> Path:
    """Write patients.csv, metrics.json and index.html; the page's path.

    The page shows scans: it stays out of repositories.
    """
    files.write_table(into / "patients.csv", outcome.patients)
    files.write_json(into / "metrics.json", outcome.metrics)
    page = into / "index.html"
    shown = outcome.patients.assign(split=[f"fold {fold}" for fold in outcome.patients.fold])
    files.write_text(
        page,
        report.render(
            metrics=outcome.metrics,
            patients=shown,
            history=files.read_table(kept(own, params, plan)[1]["history"]).iloc[:0],
            quarantine=files.read_table(own.path("quarantine")),
            pictured=_pictured(own, params, plan, outcome),
            counts={},
            settings=settings_shown(params) | {"unit": plan.unit, "folds": str(plan.folds)},
            folds=outcome.folds.to_dict("records"),
        ),
    )
    return page


def _pictured(own: Project, params: Params, plan: Plan, outcome: Outcome) -> list[report.Pictured]:
    accepted = tables.accepted(own.path("manifest"), own.path("quarantine"))
    places, found = kept(own, params, plan), []
    for fold, patients in outcome.patients.groupby("fold"):
        paths = places[int(fold)]
        rows = tables.with_split(accepted, paths["splits"])
        found += [
            picture(
                row, f"fold {fold}", PICTURED_SLICES, rows, own.path("scans"),
                paths["predicted"],
            )
            for _, row in patients.iterrows()
        ]  # fmt: skip
    return found
