"""Cross-validation: every patient is scored once, by a network that never saw it.

Each fold runs the stages `train` and `evaluate` in processes of their own, on a split made
for it. What a fold leaves is kept by a digest of all that shapes it, the training and the
scores apart, so that a run which was ended goes on where it was, and another way of scoring
trains nothing anew. Does not know Prefect.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from flows import stages
from pipeline import params as settings
from pipeline.adapters import files, locks, summaries, tables
from pipeline.adapters.project import Project
from pipeline.domain import graph, lineage, splits
from pipeline.errors import GliaflowError
from pipeline.params import Params

READ = ("scans", "manifest", "quarantine")
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
class Plan:
    """unit: what is dealt. folds: how many there are. first: how many of them are run."""

    unit: Literal["patient", "slice"]
    folds: int
    first: int

    def chosen(self) -> range:
        return range(1, self.first + 1)


@dataclass(frozen=True)
class Outcome:
    """What the folds found.

    patients: rows of patients.csv with `fold`, each scored by a network that never saw it.
    metrics: as in metrics.json, over all of them. folds: a row a fold.
    """

    patients: pd.DataFrame
    metrics: dict[str, Any]
    folds: pd.DataFrame


def change(params: Params, wanted: list[str]) -> Params:
    """The parameters with some values set: `train.epochs=20`.

    Raises:
        GliaflowError: no such key, or a value out of range.
    """
    values = params.model_dump(mode="json", by_alias=True)
    for one in wanted:
        keys, is_set, value = one.partition("=")
        *sections, last = keys.split(".")
        place = values
        for section in sections:
            place = place.get(section, {}) if isinstance(place, dict) else {}
        if not is_set or not isinstance(place, dict) or last not in place:
            raise GliaflowError(
                f"{one!r} sets nothing; expected a key of params.yaml and a value: train.epochs=20"
            )
        place[last] = yaml.safe_load(value)
    return settings.parse(values, name="the values set")


def prepare(own: Project, *, say: Callable[[str], None]) -> None:
    """Bring scans, manifest and quarantine in date."""
    pending = graph.with_followers(stages.changed(own.root), own.stages)
    for stage in own.order():
        if stage in pending and stage in ("fetch", "ingest", "validate"):
            stages.repro(own.root, stage, say=say)


def run(own: Project, params: Params, plan: Plan, *, say: Callable[[str], None]) -> Outcome:
    """Train and evaluate the folds that are not done yet; what all of them found.

    Raises:
        GliaflowError: a stage failed, or a fold has nobody to test.
    """
    accepted = tables.accepted(own.path("manifest"), own.path("quarantine"))
    places = kept(own, params, plan)
    for fold, paths in places.items():
        if paths["scores"].exists():
            say(f"fold {fold} of {plan.folds}: done before")
            continue
        paths["scores"].parent.mkdir(parents=True, exist_ok=True)
        _deal(accepted, params, plan, fold, paths["splits"])
        _run_fold(own, params, paths, lambda line, fold=fold: say(f"fold {fold}: {line}"))
    return _outcome(places, params, plan)


def _run_fold(
    own: Project, params: Params, paths: dict[str, Path], say: Callable[[str], None]
) -> None:
    trained = {key: paths[key] for key in TRAINED}
    there = {key: own.path(key) for key in READ} | {
        "params": paths["scores"].with_name("params.yaml")
    }
    files.write_text(there["params"], _dumped(own, params))
    what = "a training runs already"
    with locks.alone(own.root / ".local" / "training.lock", what=what):
        if not paths["history"].exists():
            checkpoint = {"checkpoint": paths["model"].with_name("checkpoints")}
            stages.alone(own.root, "train", there | trained | checkpoint, say=say)
        made = {key: paths[key] for key in ("splits", "model", *SCORED)}
        stages.alone(own.root, "evaluate", there | made, say=say)


def _dumped(own: Project, params: Params) -> str:
    """params.yaml of a fold; its curves go to an experiment of their own."""
    values = params.model_dump(mode="json", by_alias=True)
    values["register"]["experiment"] += " cross-validation"
    values["evaluate"]["splits"] = ["validation", "test"]
    return yaml.safe_dump(values, sort_keys=False)


def _deal(accepted: pd.DataFrame, params: Params, plan: Plan, fold: int, path: Path) -> None:
    columns = ["patient", "slice"] if plan.unit == "slice" else ["patient"]
    units = accepted[columns].drop_duplicates().sort_values(columns)
    names = [
        splits.slice_key(*unit) if plan.unit == "slice" else unit[0]
        for unit in units.itertuples(index=False)
    ]
    wanted = params.split
    dealt = [
        splits.side_in_fold(
            name, fold, salt=wanted.salt, folds=plan.folds, validation=wanted.validation
        )
        for name in names
    ]
    missing = set(splits.SPLITS) - set(dealt)
    if missing:
        raise GliaflowError(
            f"fold {fold} of {plan.folds} has nobody in {sorted(missing)[0]}; "
            f"{len(names)} {plan.unit}s are too few: bring more, or ask for fewer with --folds"
        )
    files.write_table(path, units.assign(split=dealt))
    tables.check_sides(path, by_slice=plan.unit == "slice")


def kept(own: Project, params: Params, plan: Plan) -> dict[int, dict[str, Path]]:
    """Where the files of each fold are, for exactly this data, code, recipe and plan."""
    training = {
        "code": lineage.of_files(own.code_of("train")),
        "manifest": files.sha256(own.path("manifest")),
        "quarantine": files.sha256(own.path("quarantine")),
        "params": params.model_dump(mode="json", include={"validate_", "split", "train"}),
        "unit": plan.unit,
        "folds": plan.folds,
    }
    scoring = {
        "code": lineage.of_files(own.code_of("evaluate")),
        "params": params.model_dump(mode="json", include={"evaluate"}),
    }
    above = own.root / ".local" / "cross-validation" / lineage.of_mapping(training)[:16]
    below = f"scores-{lineage.of_mapping(scoring)[:16]}"
    return {
        fold: {key: above / f"fold-{fold}" / NAMES[key] for key in TRAINED}
        | {key: above / f"fold-{fold}" / below / NAMES[key] for key in SCORED}
        for fold in plan.chosen()
    }


def _outcome(places: dict[int, dict[str, Path]], params: Params, plan: Plan) -> Outcome:
    patients, rows, seeds = [], [], []
    for fold, paths in places.items():
        table = files.read_table(paths["patients"])
        table = table[table.split == "test"].assign(fold=fold)
        patients.append(table)
        seeds.append(files.read_json(paths["scores"])["seed_tversky"])
        rows.append(
            {
                "fold": fold,
                "patients": len(table),
                "slices": int(table.slices.sum()),
                "dice": table.dice.mean(),
                "tversky": table.tversky.mean(),
                "seed_tversky": seeds[-1]["mean"],
                "epochs": len(files.read_table(paths["history"])),
            }
        )
    everyone = pd.concat(patients, ignore_index=True).sort_values(["dice", "patient"])
    batches = sum(one["batches"] for one in seeds)
    seed = sum(one["mean"] * one["batches"] for one in seeds) / batches
    metrics = {
        "test": summaries.of_patients(everyone, params.evaluate),
        "seed_tversky": {"mean": round(seed, 6), "batches": batches},
        "groups": summaries.of_groups(everyone, params.evaluate),
        "protocol": {"unit": plan.unit, "folds": plan.folds, "run": plan.first},
    }
    return Outcome(everyone, metrics, pd.DataFrame(rows))
