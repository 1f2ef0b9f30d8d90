"""Segment new scans: masks, tumour pixels and overlays, with or without reference masks."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.model import runtimes
from pipeline.adapters.process import progress
from pipeline.adapters.report import overlays as overlay_images
from pipeline.adapters.scans import image_files
from pipeline.adapters.scans.limits import Limits
from pipeline.adapters.storage import csv_files
from pipeline.app import model_in_use, scans_to_predict
from pipeline.app.model_in_use import ModelReference
from pipeline.app.scans_to_predict import ReadPatient
from pipeline.domain import intensity, metrics, postprocessing, scans
from pipeline.errors import GliaflowError

# What the output holds beside a folder per patient.
RESERVED = {"slices.csv", "patients.csv", "refused.csv", "overlays"}


def predict_folder(
    project: Project,
    folder: Path,
    out: Path,
    *,
    model_file: Path | None,
    overlays: bool,
    exact: bool = True,
) -> str:
    """Segment the scans of every patient in a folder.

    Args:
        folder: holds `<patient>/<patient>_<n>.tif`, or is the folder of one patient.
        out: new or empty. Gets `<patient>/<patient>_<n>_mask.tif`, slices.csv, patients.csv,
            `overlays/<patient>/<patient>_<n>.png`, and refused.csv for what was not read.
        model_file: a .keras file; None: the champion.
        overlays: also write images with the predicted outline.
        exact: use the runtime that models are judged with, not the fastest.

    Returns:
        What was done, as a sentence.

    Raises:
        GliaflowError: no tif in `folder`, too many patients, no readable patient, no model, or
            `out` is not empty.
    """
    scans_to_predict.check_arguments(folder, out, model_file)
    patients, refused = scans_to_predict.find_patients(
        folder, Limits.from_params(project.params.fetch)
    )
    reserved = sorted(RESERVED & set(patients))
    if reserved:
        raise GliaflowError(
            f"a patient in {folder} is called {reserved[0]}, as a file or folder of the output is; "
            "rename the patient's folder"
        )
    scans_to_predict.check_output(out)
    if not patients:
        raise _nobody_predicted(folder, out, refused)
    section = project.params.evaluate
    model = model_in_use.model_reference(project, model_file)
    runtime = model_in_use.select_runtime(project, model, patients, folder, exact=exact)
    slices, unreadable = segment(runtime, patients, folder, out, post=model.post, overlays=overlays)
    refused += unreadable
    if not slices:
        raise _nobody_predicted(folder, out, refused)
    if refused:
        _write_refused(out, refused)
    table = pd.DataFrame(slices)
    columns = table.drop(columns=["true_positives"]).dropna(axis=1, how="all")
    csv_files.write_table(out / "slices.csv", columns)
    csv_files.write_table(out / "patients.csv", _by_patient(table, section.missed_weight))
    return _summary(table, refused, model, runtime, out)


def _summary(
    table: pd.DataFrame,
    refused: list[dict[str, Any]],
    model: ModelReference,
    runtime: runtimes.Runtime,
    out: Path,
) -> str:
    unreadable = len({row["patient"] for row in refused} - set(table.patient))
    left_out = (
        f"{unreadable} patients could not be read" if unreadable else "some files were not read"
    )
    comparison = runtime.comparison
    return (
        f"{table.patient.nunique()} patients, {len(table)} slices, "
        f"{int((table.tumour_pixels > 0).sum())} with tumour predicted by {model.name} "
        f"({comparison.runtime}, {comparison.differing_share:.4%} of pixels differ from the judged masks on "
        f"{comparison.sample_slices} slices); "
        + (f"{left_out}: {out / 'refused.csv'}; " if refused else "")
        + f"see {out / 'patients.csv'}. Not for clinical use."
    )


def _nobody_predicted(folder: Path, out: Path, refused: list[dict[str, Any]]) -> GliaflowError:
    """Write refused.csv; return the error that points to it."""
    _write_refused(out, refused)
    return GliaflowError(
        f"no patient of {folder} could be predicted; {out / 'refused.csv'} names the file and "
        "the reason for each"
    )


def _write_refused(out: Path, refused: list[dict[str, Any]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    csv_files.write_table(out / "refused.csv", pd.DataFrame(refused))


def segment(
    runtime: runtimes.Runtime,
    patients: dict[str, list[Path]],
    folder: Path,
    out: Path,
    *,
    post: postprocessing.PostProcessing,
    overlays: bool,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read, segment and write every patient; reading and writing overlap with the network.

    Args:
        patients: the tif files of each patient, below `folder`.

    Returns:
        Rows of slices.csv, and of refused.csv.
    """
    written: list[Future[list[dict[str, Any]]]] = []
    refused: list[dict[str, Any]] = []
    with ThreadPoolExecutor(1) as writer:
        read = _read_ahead(scans_to_predict.read_all(patients, folder, runtime.shape))
        for patient in progress.track(read, total=len(patients), label="predicting"):
            if patient.scan is None:
                refused += scans_to_predict.faults(patient, runtime.shape)
                continue
            mask = postprocessing.segment_scan(
                runtime.predict, patient.scan.images, post, model_name=runtime.model_name
            ).mask
            written.append(writer.submit(_write_patient, patient, mask, out, overlays))
    return [row for rows in written for row in rows.result()], refused


def _read_ahead(patients: Iterator[ReadPatient]) -> Iterator[ReadPatient]:
    """Pass patients on; read the next one while the caller works on the last."""
    with ThreadPoolExecutor(1) as reader:
        pending = reader.submit(next, patients, None)
        while (patient := pending.result()) is not None:
            pending = reader.submit(next, patients, None)
            yield patient


def _write_patient(
    patient: ReadPatient, predicted: np.ndarray, out: Path, with_overlays: bool
) -> list[dict[str, Any]]:
    """Write the masks and overlays of a patient; return its rows of slices.csv."""
    assert patient.scan is not None
    images, truth = patient.scan.images, patient.scan.masks.astype(bool)
    mask_folder, overlay_folder = out / patient.name, out / "overlays" / patient.name
    mask_folder.mkdir(parents=True)
    if with_overlays:
        overlay_folder.mkdir(parents=True)
        to_show = intensity.apply_scale(images, intensity.estimate_scale(images))
    rows = []
    for i, row in enumerate(patient.rows):
        reference = truth[i] if patient.has_masks[i] else None
        name = scans.file_name(patient.name, row["slice"], is_mask=True)
        tif = image_files.encode_tif(predicted[i].astype(np.uint8) * 255)
        (mask_folder / name).write_bytes(tif)
        if with_overlays:
            overlay = overlay_images.draw_overlay(to_show[i], predicted[i], reference)
            path = overlay_folder / f"{patient.name}_{row['slice']}.png"
            overlay_images.save_png(path, overlay)
        rows.append(_slice_row(patient.name, row, predicted[i], reference))
    return rows


def _slice_row(
    patient: str, row: dict[str, Any], predicted: np.ndarray, truth: np.ndarray | None
) -> dict[str, Any]:
    return {
        "patient": patient,
        "slice": row["slice"],
        "file": row["file"],
        "tumour_pixels": int(np.count_nonzero(predicted)),
        "true_pixels": None if truth is None else int(np.count_nonzero(truth)),
        "true_positives": None if truth is None else int(np.count_nonzero(predicted & truth)),
    }


def _by_patient(slices: pd.DataFrame, missed_weight: float) -> pd.DataFrame:
    """Return rows of patients.csv: tumour pixels, and scores if every slice came with a mask."""
    rows: list[dict[str, Any]] = []
    for patient, group in slices.groupby("patient"):
        tumour_pixels = int(group.tumour_pixels.sum())
        row: dict[str, Any] = {
            "patient": patient,
            "slices": len(group),
            "tumour_slices": int((group.tumour_pixels > 0).sum()),
            "tumour_pixels": tumour_pixels,
        }
        if group.true_pixels.notna().all():
            true_positives = int(group.true_positives.sum())
            counts = metrics.Overlap(
                true_positives=true_positives,
                false_negatives=int(group.true_pixels.sum()) - true_positives,
                false_positives=tumour_pixels - true_positives,
            )
            row |= {
                "true_pixels": counts.tumour,
                "tversky": round(metrics.tversky(counts, missed_weight=missed_weight), 6),
                "dice": round(metrics.dice(counts), 6),
            }
        rows.append(row)
    return pd.DataFrame(rows)
