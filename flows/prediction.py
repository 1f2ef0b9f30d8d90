"""`gliaflow predict`: scans in, masks and volumes out. Works with or without masks beside them."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows import publish
from pipeline.adapters import (
    files,
    forms,
    model_files,
    progress,
    project,
    quiet,
    scan_files,
    sources,
)
from pipeline.adapters import overlays as pictures
from pipeline.adapters.project import Project
from pipeline.domain import intensity, masks, metrics, scans
from pipeline.errors import GliaflowError

PROVEN_ON = 32  # slices that forms of a model are compared and timed on


@dataclass(frozen=True)
class Wanted:
    """A model that is not loaded yet: what names its weights, what to call it, how to load it."""

    key: str
    name: str
    load: Callable[[], Any]


def predict(
    scans_folder: Path, out: Path, *, model_file: Path | None, overlays: bool, exact: bool = False
) -> str:
    """Segment every patient of a folder.

    Args:
        scans_folder: holds `<patient>/<patient>_<n>.tif`, or is the folder of one patient.
        out: new or empty. Gets `<patient>/<patient>_<n>_mask.tif`, slices.csv, patients.csv,
            `overlays/<patient>/<patient>_<n>.png`, and refused.csv for what could not be read.
        exact: take no form of the model that differs from Keras's masks in a single pixel.

    Returns:
        What was done, in words.

    Raises:
        GliaflowError: nothing to read, nothing that could be predicted, or `out` holds files.
    """
    patients = _patients(scans_folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise GliaflowError(f"{out} is there and not empty; give a new folder with --out")
    own = project.find(Path.cwd())
    evaluate = own.params().evaluate
    wanted = _wanted(own, model_file)
    fastest = _fastest(own, wanted, patients, scans_folder, exact=exact)
    rule = masks.Rule(evaluate.threshold, evaluate.views, evaluate.keep, evaluate.min_area_px)
    slices, refused = segment(fastest, patients, scans_folder, out, rule=rule, overlays=overlays)
    out.mkdir(parents=True, exist_ok=True)
    if refused:
        files.write_table(out / "refused.csv", pd.DataFrame(refused))
    if not slices:
        raise GliaflowError(
            f"no patient of {scans_folder} could be predicted; {out / 'refused.csv'} says why"
        )
    table = pd.DataFrame(slices)
    files.write_table(out / "slices.csv", table.drop(columns=["hit"]).dropna(axis=1, how="all"))
    files.write_table(out / "patients.csv", _by_patient(table, evaluate.missed_weight))
    left = len({row["patient"] for row in refused})
    return (
        f"{table.patient.nunique()} patients, {len(table)} slices, "
        f"{int((table.tumour_pixels > 0).sum())} with tumour predicted by {wanted.name} "
        f"({fastest.proof.form}, {fastest.proof.different:.4%} of pixels other than Keras's on "
        f"{fastest.proof.sample_slices} slices); "
        + (f"{left} patients could not be read: {out / 'refused.csv'}; " if left else "")
        + f"see {out / 'patients.csv'}. Not for clinical use."
    )


def segment(
    fastest: forms.Fastest,
    patients: dict[str, list[Path]],
    folder: Path,
    out: Path,
    *,
    rule: masks.Rule,
    overlays: bool,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """From files to masks on disk; reading and writing go on beside the network.

    Args:
        patients: the tif files of each, as they lie below `folder`.
        rule: how masks follow from probabilities.

    Returns:
        Rows of slices.csv, and of refused.csv.
    """
    written, refused = [], []
    with ThreadPoolExecutor(1) as writer:
        found = _ahead(_read_all(patients, folder, fastest.shape))
        for patient in progress.track(found, total=len(patients), label="predicting"):
            if patient.scan is None:
                refused += _reasons(patient, fastest.shape)
                continue
            images = patient.scan.images
            found_in = masks.of_scan(fastest.predict, images, rule, model_name=fastest.model_name)
            written.append(writer.submit(_write_patient, patient, found_in.mask, out, overlays))
    return [row for rows in written for row in rows.result()], refused


def _patients(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise GliaflowError(f"{folder} is no folder; give one with <patient>/<patient>_<n>.tif")
    found = defaultdict(list)
    for path in sources.below(folder.resolve()):
        if path.suffix.lower() in {".tif", ".tiff"}:
            found[path.parent.name].append(path)
    if not found:
        raise GliaflowError(f"{folder} holds no tif; expected <patient>/<patient>_<n>.tif in it")
    return dict(found)


def _wanted(own: Project, model_file: Path | None) -> Wanted:
    """The model of a file, or the champion of the project that we are in."""
    if model_file is not None:
        key = files.sha256(model_file) if model_file.is_file() else ""
        return Wanted(key, str(model_file), partial(_loaded, model_files.load, model_file))
    store = publish.open_registry(own)
    champion = store.champion()
    if champion is None:
        raise GliaflowError(
            "no version is in use yet; `gliaflow run` trains and judges one, or give a file "
            "with --model"
        )
    return Wanted(champion.digest, f"version {champion.version}", partial(store.load, champion))


def _loaded(load: Callable[[Any], Any], what: Any) -> Any:
    quiet.keras_loaded()
    return load(what)


def _fastest(
    own: Project, wanted: Wanted, patients: dict[str, list[Path]], folder: Path, *, exact: bool
) -> forms.Fastest:
    """The fastest form of a model; proven on these scans where this machine does not know it yet."""
    kept = own.root / ".local" / "forms" / wanted.key[:16]
    found = forms.stored(kept, exact=exact, load=wanted.load) if wanted.key else None
    if found is not None:
        return found
    model = wanted.load()
    shape, scans_found = model.inputs[0].shape[1:], []
    for patient in _read_all(patients, folder, shape):
        if patient.scan is not None:
            images = patient.scan.images
            scans_found.append(intensity.fitting(model.name, images, images))
        if sum(map(len, scans_found)) >= PROVEN_ON:
            break
    sample = (
        forms.sample_of(scans_found, PROVEN_ON) if scans_found else np.zeros((1, *shape), np.uint8)
    )
    threshold = own.params().evaluate.threshold
    return forms.prove(kept, model, sample, threshold=threshold, exact=exact)


@dataclass(frozen=True)
class Read:
    """A patient's files as they were read; scan is None where they cannot be predicted."""

    name: str
    rows: list[dict[str, Any]]
    scan: scan_files.Scan | None
    has_masks: np.ndarray


def _read_all(
    patients: dict[str, list[Path]], folder: Path, shape: tuple[int, ...]
) -> Iterator[Read]:
    for name, paths in sorted(patients.items()):
        read = scan_files.read(name, paths, root=folder.resolve(), needs_masks=False)
        fits = read.scan is not None and read.scan.images.shape[1:] == shape
        has_masks = np.array([row["mask_file"] is not None for row in read.rows])
        yield Read(name, read.rows, read.scan if fits else None, has_masks)


def _reasons(patient: Read, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Why a patient could not be predicted: a row for each file at fault."""
    expected = "x".join(map(str, shape)) + " uint8, one image a number"
    rows = []
    for row in patient.rows:
        size = tuple(row[key] for key in ("height", "width", "channels"))
        fault = (
            row["unreadable"]
            or (row["misnamed"] and "the name does not fit its folder")
            or (row["file"] is None and "a mask without image")
            or ((size != shape or row["dtype"] != "uint8") and
                f"{'x'.join(map(str, size))} {row['dtype']}")
            or (row["numbering"] if "twice" in (row["numbering"] or "") else None)
        )  # fmt: skip
        if fault:
            file = row["file"] or row["mask_file"]
            rows.append(
                {"patient": patient.name, "file": file, "found": fault, "expected": expected}
            )
    return rows or [
        {"patient": patient.name, "file": "", "found": "slices of different sizes",
         "expected": expected}
    ]  # fmt: skip


def _ahead(patients: Iterator[Read]) -> Iterator[Read]:
    """The same, the next one read while one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, patients, None)
        while (patient := coming.result()) is not None:
            coming = reader.submit(next, patients, None)
            yield patient


def _write_patient(
    patient: Read, predicted: np.ndarray, out: Path, with_overlays: bool
) -> list[dict[str, Any]]:
    """Write masks and pictures; rows of slices.csv."""
    assert patient.scan is not None
    images, truth = patient.scan.images, patient.scan.masks.astype(bool)
    masks_to, pictures_to = out / patient.name, out / "overlays" / patient.name
    masks_to.mkdir(parents=True)
    if with_overlays:
        pictures_to.mkdir(parents=True)
        to_show = intensity.apply(images, intensity.of_scan(images))
    rows = []
    for i, row in enumerate(patient.rows):
        own_truth = truth[i] if patient.has_masks[i] else None
        name = scans.file_name(patient.name, row["slice"], is_mask=True)
        tif = files.encode_tif(predicted[i].astype(np.uint8) * 255)
        (masks_to / name).write_bytes(tif)
        if with_overlays:
            picture = pictures.draw(to_show[i], predicted[i], own_truth)
            pictures.save(pictures_to / f"{patient.name}_{row['slice']}.png", picture)
        rows.append(_slice_row(patient.name, row, predicted[i], own_truth))
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
        "hit": None if truth is None else int(np.count_nonzero(predicted & truth)),
    }


def _by_patient(slices: pd.DataFrame, missed_weight: float) -> pd.DataFrame:
    """Volumes in pixels, and scores for patients all of whose slices came with masks."""
    rows = []
    for patient, own in slices.groupby("patient"):
        row = {
            "patient": patient,
            "slices": len(own),
            "tumour_slices": int((own.tumour_pixels > 0).sum()),
            "tumour_pixels": int(own.tumour_pixels.sum()),
        }
        if own.true_pixels.notna().all():
            hit = int(own.hit.sum())
            found = metrics.Overlap(
                hit, int(own.true_pixels.sum()) - hit, row["tumour_pixels"] - hit
            )
            row |= {
                "true_pixels": found.tumour,
                "tversky": round(metrics.tversky(found, missed_weight=missed_weight), 6),
                "dice": round(metrics.dice(found), 6),
            }
        rows.append(row)
    return pd.DataFrame(rows)
