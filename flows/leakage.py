"""What a split by slice would have flattered: one recipe, its folds dealt by patient and by slice.

Does not know Prefect.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows import folds
from flows.folds import Outcome, Plan
from pipeline.adapters import files, report
from pipeline.adapters.project import Project
from pipeline.params import Params

SCORES = ("tversky", "dice")
NAME = "leakage.json"


def measure(
    own: Project, params: Params, *, count: int, first: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run the same folds both ways; write leakage.json and show it on the page.

    Args:
        count: how many folds are dealt. first: how many of them are run, each way.

    Returns:
        `patient` and `slice`: mean, interval and median of each score over patients, and the
        seed Tversky; `flattered`: by how much the means by slice lie higher.
    """
    found: dict[str, Any] = {
        unit: _scores(folds.run(own, params, Plan(unit, count, first), say=_named(unit, say)))
        for unit in ("patient", "slice")
    }
    found["flattered"] = {
        score: round(found["slice"][score]["mean"] - found["patient"][score]["mean"], 6)
        for score in (*SCORES, "seed_tversky")
    }
    found["folds"] = {"dealt": count, "run": first}
    found["recipe"] = recipe_of(params)
    files.write_json(_place(own), found)
    _show(own, found)
    return found


def kept(own: Project, params: Params) -> dict[str, Any] | None:
    """What was measured for this recipe; None where nothing was, or for another one."""
    if not _place(own).exists():
        return None
    found = files.read_json(_place(own))
    return found if found.get("recipe") == recipe_of(params) else None


def recipe_of(params: Params) -> dict[str, Any]:
    return params.train.model_dump(mode="json")


def _scores(outcome: Outcome) -> dict[str, Any]:
    scores = {score: outcome.metrics["test"][score] for score in SCORES}
    return scores | {"seed_tversky": outcome.metrics["seed_tversky"]}


def _named(unit: str, say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: say(f"by {unit}: {line}")


def _place(own: Project) -> Path:
    return own.path("index").with_name(NAME)


def _show(own: Project, found: dict[str, Any]) -> None:
    """On the page of a model that is judged already, where its recipe is this one."""
    decision = own.path("index").with_name("decision.json")
    page = own.path("page")
    if decision.exists() and page.exists() and found["recipe"] == recipe_of(own.params()):
        text = report.with_decision(
            page.read_text(encoding="utf-8"), files.read_json(decision), leakage=found
        )
        files.write_text(own.path("index"), text)
