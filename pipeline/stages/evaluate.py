"""Score the model on patients that it was not trained on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.adapters.model import model_files, predictions, predictors
from pipeline.adapters.process import progress
from pipeline.adapters.scans import arrays
from pipeline.adapters.storage import csv_files, json_files, stage_tables
from pipeline.domain import evaluation, metrics, postprocessing
from pipeline.domain.evaluation import ScoredPatient
from pipeline.domain.postprocessing import PostProcessing
from pipeline.domain.scans import missing_sequences
from pipeline.network import backend
from pipeline.params import Evaluate, Params


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
    """Score every patient of the evaluated splits.

    Args:
        scans, manifest, quarantine, splits, model: read.
        scores: metrics.json.
        patients: table of scores, one row per patient.
        predicted: masks, named `<split>/<patient>`.
    """
    section = params.evaluate
    backend.make_repeatable(params.train.seed)
    accepted = stage_tables.accepted_slices(manifest, quarantine)
    rows = stage_tables.join_splits(accepted, splits)
    rows = rows[rows.split.isin(section.splits)]
    sizes = accepted.groupby("patient").tumour_pixels.sum().to_numpy()
    scored = list(
        _score(rows, model_files.load_model(model), section, scans, metrics.terciles(sizes))
    )
    table = pd.DataFrame([patient.row for patient in scored])
    csv_files.write_table(patients, table)
    predictions.save_masks(
        predicted,
        {f"{patient.row['split']}/{patient.row['patient']}": patient.mask for patient in scored},
    )
    summary = evaluation.summarize(table, scored, section)
    json_files.write_json(scores, summary)
    _report(summary)


def _score(
    rows: pd.DataFrame, model: Any, section: Evaluate, scans: Path, bounds: tuple[float, float]
) -> Iterator[ScoredPatient]:
    """Segment and score each patient.

    Args:
        rows: of the manifest, with their split.
        bounds: terciles of the tumour sizes of all accepted patients, in pixels.
    """
    predict = predictors.reference_predictor(model)
    post = PostProcessing.from_params(section)
    groups = list(rows.groupby(["split", "patient"]))
    for (split, patient), slices in progress.track(groups, total=len(groups), label="evaluating"):
        scan = arrays.open_scan(scans, str(patient))
        positions = slices.position.to_numpy()
        segmented = postprocessing.segment_scan(
            predict, scan.images, post, model_name=model.name, positions=positions
        )
        truth = scan.masks[positions].astype(bool)
        row = {
            "patient": patient,
            "split": split,
            "site": slices.site.iloc[0],
            **evaluation.patient_scores(truth, segmented.mask, missed_weight=section.missed_weight),
            "missing": missing_sequences(slices.missing.fillna("")) or "none",
            "size_group": metrics.size_group(slices.tumour_pixels.sum(), bounds),
        }
        tumour = truth.any(axis=(1, 2))
        yield ScoredPatient(row, segmented.mask, truth[tumour], segmented.probability[tumour])


def _report(summary: dict[str, Any]) -> None:
    for split in ("validation", "test"):
        if split in summary:
            score = summary[split]["tversky"]
            print(
                f"evaluate: {split} Tversky {score['mean']:.4f} "
                f"({score['low']:.4f} to {score['high']:.4f}, {score['patients']} patients)"
            )
