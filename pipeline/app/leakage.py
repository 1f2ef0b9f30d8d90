"""Measure leakage: the same training, cross-validated with folds split by patient and by slice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.report import html_page
from pipeline.adapters.storage import files, json_files
from pipeline.app import cross_validation
from pipeline.app.cross_validation import CrossValidation, FoldPlan
from pipeline.params import Params

SCORES = ("tversky", "dice")
NAME = "leakage.json"


def measure(
    project: Project, params: Params, *, count: int, first: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run the same folds both ways; write leakage.json and show it on the report.

    Args:
        params: for both cross-validations; may differ from the project's.
        count: number of folds. first: how many of them to run, each way.

    Returns:
        `patient` and `slice`: mean, interval and median of each score over patients, and the
        seed Tversky; `flattered`: by how much the means by slice are higher.
    """
    result: dict[str, Any] = {
        "patient": _scores(project, params, FoldPlan("patient", count, first), say),
        "slice": _scores(project, params, FoldPlan("slice", count, first), say),
    }
    result["flattered"] = {
        score: round(result["slice"][score]["mean"] - result["patient"][score]["mean"], 6)
        for score in (*SCORES, "seed_tversky")
    }
    result["folds"] = {"dealt": count, "run": first}
    result["recipe"] = _train_params(params)
    json_files.write_json(_path(project), result)
    _update_report(project, result)
    return result


def stored_result(project: Project) -> dict[str, Any] | None:
    """Return the result that was measured with the project's `train` parameters, or None."""
    path = _path(project)
    if not path.exists():
        return None
    result: dict[str, Any] = json_files.read_json(path)
    return result if result.get("recipe") == _train_params(project.params) else None


def _train_params(params: Params) -> dict[str, Any]:
    return params.train.model_dump(mode="json")


def _scores(
    project: Project, params: Params, plan: FoldPlan, say: Callable[[str], None]
) -> dict[str, Any]:
    result: CrossValidation = cross_validation.run_folds(
        project, params, plan, say=lambda line: say(f"by {plan.unit}: {line}")
    )
    scores = {score: result.metrics["test"][score] for score in SCORES}
    return scores | {"seed_tversky": result.metrics["seed_tversky"]}


def _path(project: Project) -> Path:
    return project.path("index").with_name(NAME)


def _update_report(project: Project, result: dict[str, Any]) -> None:
    """Show the result on a report with a decision, if both have the same `train` parameters."""
    decision = project.path("index").with_name("decision.json")
    page = project.path("page")
    if decision.exists() and page.exists() and result["recipe"] == _train_params(project.params):
        text = html_page.with_decision(
            page.read_text(encoding="utf-8"), json_files.read_json(decision), leakage=result
        )
        files.write_text(project.path("index"), text)
