"""Score the model on patients it was not trained on: every patient, and what follows for all."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.adapters import (
    arrays,
    files,
    forms,
    model_files,
    predictions,
    progress,
    summaries,
    tables,
)
from pipeline.domain import masks, metrics
from pipeline.domain.scans import missing_sequences
from pipeline.network import backend
from pipeline.params import Evaluate, Params


@dataclass(frozen=True)
class Scored:
    """A patient's row of patients.csv, its cut masks, and its tumour slices for the seed Tversky.

    predicted: (S, H, W) bool. truth, probability: (T, H, W), tumour slices alone.
    """

    row: dict[str, Any]
    predicted: np.ndarray
    truth: np.ndarray
    probability: np.ndarray


def run(
    params: Params,
    *,
    scans: Path,
    manifest: Path,
    quarantine: Path,
    splits: Path,
    model: Path,
    scores: Path,
    patients: Path,
    predicted: Path,
) -> None:
    """Write metrics.json, patients.csv and the predicted masks of the splits that are evaluated."""
    wanted = params.evaluate
    backend.make_repeatable(params.train.seed)
    accepted = tables.accepted(manifest, quarantine)
    rows = tables.with_split(accepted, splits)
    rows = rows[rows.split.isin(wanted.splits)]
    found = list(_score(rows, accepted, model_files.load(model), wanted, scans=scans))
    table = pd.DataFrame([one.row for one in found])
    files.write_table(patients, table)
    predictions.save(
        predicted, {f"{one.row['split']}/{one.row['patient']}": one.predicted for one in found}
    )
    summary = _summary(table, found, wanted)
    files.write_json(scores, summary)
    _say(summary)


def _score(
    rows: pd.DataFrame, accepted: pd.DataFrame, model: Any, wanted: Evaluate, *, scans: Path
) -> Iterator[Scored]:
    bounds = metrics.terciles(accepted.groupby("patient").tumour_pixels.sum().to_numpy())
    predict = forms.steady(model)
    rule = masks.Rule(wanted.threshold, wanted.views, wanted.keep, wanted.min_area_px)
    groups = list(rows.groupby(["split", "patient"]))
    for (split, patient), own in progress.track(groups, total=len(groups), label="evaluating"):
        scan = arrays.open_scan(scans, patient)
        positions = own.position.to_numpy()
        seen = masks.of_scan(predict, scan.images, rule, model_name=model.name, positions=positions)
        truth = scan.masks[positions].astype(bool)
        row = {"patient": patient, "split": split, "site": own.site.iloc[0]}
        row |= _facts(truth, seen.mask, wanted.missed_weight)
        row |= _groups(own, bounds)
        with_tumour = truth.any(axis=(1, 2))
        yield Scored(row, seen.mask, truth[with_tumour], seen.probability[with_tumour])


def _facts(truth: np.ndarray, predicted: np.ndarray, missed_weight: float) -> dict[str, Any]:
    found = metrics.overlap(truth, predicted)
    free = ~truth.any(axis=(1, 2))
    return {
        "tversky": round(metrics.tversky(found, missed_weight=missed_weight), 6),
        "dice": round(metrics.dice(found), 6),
        "sensitivity": round(metrics.sensitivity(found), 6),
        "precision": round(metrics.precision(found), 6),
        "slices": len(truth),
        "tumour_slices": int((~free).sum()),
        "tumour_pixels": found.tumour,
        "predicted_pixels": found.predicted,
        "false_alarm_slices": int((predicted.any(axis=(1, 2)) & free).sum()),
    }


def _groups(own: pd.DataFrame, bounds: tuple[float, float]) -> dict[str, str]:
    missing = missing_sequences(own.missing.fillna(""))
    return {
        "missing": missing or "none",
        "size_group": metrics.size_group(own.tumour_pixels.sum(), bounds),
    }


def _summary(table: pd.DataFrame, found: list[Scored], wanted: Evaluate) -> dict[str, Any]:
    """What metrics.json holds; a split without patients is left out."""
    summary: dict[str, Any] = {
        split: summaries.of_patients(table[table.split == split], wanted)
        for split in wanted.splits
        if (table.split == split).any()
    }
    test = [one for one in found if one.row["split"] == "test"]
    if test:
        mean, batches = metrics.seed_tversky(
            np.concatenate([one.truth for one in test]),
            np.concatenate([one.probability for one in test]),
            missed_weight=wanted.missed_weight,
        )
        summary["seed_tversky"] = {"mean": round(mean, 6), "batches": batches}
    summary["groups"] = summaries.of_groups(table[table.split == "test"], wanted)
    return summary


def _say(summary: dict[str, Any]) -> None:
    for split in ("validation", "test"):
        if split in summary:
            score = summary[split]["tversky"]
            print(
                f"evaluate: {split} Tversky {score['mean']:.4f} "
                f"({score['low']:.4f} to {score['high']:.4f}, {score['patients']} patients)"
            )
