"""Cross-validation: score every patient once, by a network that never saw it.

Each fold runs the stages `train` and `evaluate` as child processes, on the split of that fold.
Results are stored under a digest of everything that shapes them, trainings and scores apart.
An interrupted run therefore resumes, and other post-processing retrains nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline import params as parameters
from pipeline.adapters.checkout import stage_runs
from pipeline.adapters.checkout.project import Project
from pipeline.adapters.storage import csv_files, files, json_files, stage_tables
from pipeline.domain import graph, lineage, splits, summaries
from pipeline.domain.splits import Unit
from pipeline.errors import GliaflowError
from pipeline.params import Params

INPUTS = ("scans", "manifest", "quarantine")
TRAINED = ("splits", "model", "history")
SCORED = ("scores", "patients", "predicted")
NAMES = {
    "splits": "splits.csv",
    "model": "model.keras",
    "history": "history.csv",
    "scores": "metrics.json",
    "patients": "patients.csv",
    "predicted": "predictions.npz",
}


@dataclass(frozen=True)
class FoldPlan:
    """How a cross-validation splits.

    unit: what is split into folds. folds: number of folds. first: how many of them to run.
    """

    unit: Unit
    folds: int
    first: int

    def chosen(self) -> range:
        return range(1, self.first + 1)


@dataclass(frozen=True)
class CrossValidation:
    """Results of all folds that were run.

    patients: rows of patients.csv with `fold`, each scored by a network that never saw it.
    metrics: as in metrics.json, over all of them. folds: one row per fold.
    """

    patients: pd.DataFrame
    metrics: dict[str, Any]
    folds: pd.DataFrame


def override_params(params: Params, assignments: list[str]) -> Params:
    """Return the parameters with some values replaced.

    Args:
        assignments: `train.epochs=20`, one per value; values are YAML.

    Raises:
        GliaflowError: no such key, or a value out of range.
    """
    values = params.model_dump(mode="json", by_alias=True)
    for assignment in assignments:
        keys, is_set, value = assignment.partition("=")
        *sections, last = keys.split(".")
        section = values
        for name in sections:
            section = section.get(name, {}) if isinstance(section, dict) else {}
        if not is_set or not isinstance(section, dict) or last not in section:
            raise GliaflowError(
                f"{assignment!r} sets nothing; expected a key of params.yaml and a value, such as "
                "train.epochs=20"
            )
        section[last] = yaml.safe_load(value)
    return parameters.parse(values, name="--set")


def update_inputs(project: Project, *, say: Callable[[str], None]) -> None:
    """Bring scans, manifest and quarantine up to date."""
    changed = stage_runs.changed_stages(project.root)
    pending = graph.with_downstream(changed, project.stages)
    for stage in project.order():
        if stage in pending and stage in ("fetch", "ingest", "validate"):
            stage_runs.repro_stage(project.root, stage, say=say)


def run_folds(
    project: Project, params: Params, plan: FoldPlan, *, say: Callable[[str], None]
) -> CrossValidation:
    """Train and evaluate the folds that are not done yet; return the results of all.

    Raises:
        GliaflowError: a stage failed, or a split of a fold is empty.
    """
    accepted = stage_tables.accepted_slices(project.path("manifest"), project.path("quarantine"))
    folds = fold_paths(project, params, plan)
    for fold, paths in folds.items():
        if paths["scores"].exists():
            say(f"fold {fold} of {plan.folds}: already done")
            continue
        paths["scores"].parent.mkdir(parents=True, exist_ok=True)
        _write_split(accepted, params, plan, fold, paths["splits"])
        _run_fold(project, params, paths, say=partial(_say_in_fold, say, fold))
    return _collect(folds, params, plan)


def fold_paths(project: Project, params: Params, plan: FoldPlan) -> dict[int, dict[str, Path]]:
    """Map each fold to its files, for exactly this data, code, parameters and plan."""
    training = {
        "code": project.code_digest("train"),
        "manifest": files.sha256(project.path("manifest")),
        "quarantine": files.sha256(project.path("quarantine")),
        "params": params.model_dump(mode="json", include={"validate_", "split", "train"}),
        "unit": plan.unit,
        "folds": plan.folds,
    }
    scoring = {
        "code": project.code_digest("evaluate"),
        "params": params.model_dump(mode="json", include={"evaluate"}),
    }
    root = project.local.cross_validation / lineage.digest_of_mapping(training)[:16]
    scores = f"scores-{lineage.digest_of_mapping(scoring)[:16]}"
    return {
        fold: {key: root / f"fold-{fold}" / NAMES[key] for key in TRAINED}
        | {key: root / f"fold-{fold}" / scores / NAMES[key] for key in SCORED}
        for fold in plan.chosen()
    }


def _say_in_fold(say: Callable[[str], None], fold: int, line: str) -> None:
    say(f"fold {fold}: {line}")


def _run_fold(
    project: Project, params: Params, paths: dict[str, Path], *, say: Callable[[str], None]
) -> None:
    """Train and evaluate one fold; a fold whose training is done is only evaluated."""
    inputs = {key: project.path(key) for key in INPUTS}
    inputs["params"] = paths["scores"].with_name("params.yaml")
    files.write_text(inputs["params"], _fold_params(params))
    trained = {key: paths[key] for key in TRAINED}
    if not paths["history"].exists():
        state = {
            "checkpoint": paths["model"].with_name("checkpoints"),
            "lock": project.path("lock"),
            "compiled": project.path("compiled"),
        }
        stage_runs.run_stage(project.root, "train", inputs | trained | state, say=say)
    scored = {key: paths[key] for key in ("splits", "model", *SCORED)}
    stage_runs.run_stage(project.root, "evaluate", inputs | scored, say=say)


def _fold_params(params: Params) -> str:
    """Return params.yaml of a fold; its training curves go to a separate MLflow experiment."""
    values = params.model_dump(mode="json", by_alias=True)
    values["register"]["experiment"] += " cross-validation"
    values["evaluate"]["splits"] = ["validation", "test"]
    return yaml.safe_dump(values, sort_keys=False)


def _write_split(
    accepted: pd.DataFrame, params: Params, plan: FoldPlan, fold: int, path: Path
) -> None:
    units = stage_tables.split_units(accepted, plan.unit)
    assigned = splits.fold_assignment(
        stage_tables.unit_names(units), fold,
        salt=params.split.salt, folds=plan.folds, validation=params.split.validation,
    )  # fmt: skip
    empty = set(splits.SPLITS) - set(assigned)
    if empty:
        raise GliaflowError(
            f"fold {fold} of {plan.folds} has no {plan.unit} in {sorted(empty)[0]}; {len(units)} "
            f"{plan.unit}s are too few: add patients, or ask for fewer folds with --folds"
        )
    csv_files.write_table(path, units.assign(split=assigned))
    stage_tables.check_disjoint(path, by_slice=plan.unit == "slice")


def _collect(folds: dict[int, dict[str, Path]], params: Params, plan: FoldPlan) -> CrossValidation:
    tables, seed_scores, rows = [], [], []
    for fold, paths in folds.items():
        table = csv_files.read_table(paths["patients"])
        table = table[table.split == "test"].assign(fold=fold)
        seed_score = json_files.read_json(paths["scores"])["seed_tversky"]
        epochs = len(csv_files.read_table(paths["history"]))
        tables.append(table)
        seed_scores.append(seed_score)
        rows.append(_fold_row(fold, table, seed_tversky=seed_score["mean"], epochs=epochs))
    patients = pd.concat(tables, ignore_index=True).sort_values(["dice", "patient"])
    metrics = {
        "test": summaries.summarize_patients(patients, params.evaluate),
        "seed_tversky": _pool(seed_scores),
        "groups": summaries.summarize_groups(patients, params.evaluate),
        "protocol": {"unit": plan.unit, "folds": plan.folds, "run": plan.first},
    }
    return CrossValidation(patients, metrics, pd.DataFrame(rows))


def _fold_row(
    fold: int, patients: pd.DataFrame, *, seed_tversky: float, epochs: int
) -> dict[str, Any]:
    return {
        "fold": fold,
        "patients": len(patients),
        "slices": int(patients.slices.sum()),
        "dice": patients.dice.mean(),
        "tversky": patients.tversky.mean(),
        "seed_tversky": seed_tversky,
        "epochs": epochs,
    }


def _pool(seed_scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the seed Tversky over the batches of all folds."""
    batches = sum(score["batches"] for score in seed_scores)
    mean = sum(score["mean"] * score["batches"] for score in seed_scores) / batches
    return {"mean": round(mean, 6), "batches": batches}
