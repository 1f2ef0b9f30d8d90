"""Segment new scans: masks, tumour pixels and overlays, with or without reference masks."""

import stat
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.model import model_files, runtimes
from pipeline.adapters.process import native_logs, progress
from pipeline.adapters.report import overlays as overlay_images
from pipeline.adapters.scans import image_files, patient_files, sources
from pipeline.adapters.scans.arrays import Scan
from pipeline.adapters.scans.sources import Limits, SourceFile
from pipeline.adapters.storage import csv_files, files
from pipeline.app.open_registry import open_registry
from pipeline.domain import intensity, metrics, postprocessing, scans
from pipeline.errors import GliaflowError

# What the output holds beside a folder per patient.
RESERVED = {"slices.csv", "patients.csv", "refused.csv", "overlays"}
NAMES = "regular files <patient>/<patient>_<n>.tif"
SAMPLE_SLICES = 32  # runtimes of a model are compared and timed on this many slices


@dataclass(frozen=True)
class ModelReference:
    """A model that is not loaded yet.

    key: digest of the model, under which its runtimes are cached; empty: unknown. name: for
    messages. load: returns the Keras model.
    """

    key: str
    name: str
    load: Callable[[], Any]


def predict_folder(
    project: Project,
    folder: Path,
    out: Path,
    *,
    model_file: Path | None,
    overlays: bool,
    exact: bool = False,
) -> str:
    """Segment the scans of every patient in a folder.

    Args:
        folder: holds `<patient>/<patient>_<n>.tif`, or is the folder of one patient.
        out: new or empty. Gets `<patient>/<patient>_<n>_mask.tif`, slices.csv, patients.csv,
            `overlays/<patient>/<patient>_<n>.png`, and refused.csv for what was not read.
        model_file: a .keras file; None: the champion.
        overlays: also write images with the predicted outline.
        exact: use only runtimes whose masks equal those of Keras in every pixel.

    Returns:
        What was done, as a sentence.

    Raises:
        GliaflowError: no tif in `folder`, too many patients, no readable patient, no model, or
            `out` is not empty.
    """
    _check_arguments(folder, out, model_file)
    patients, refused = _patients(folder, Limits.from_params(project.params.fetch))
    reserved = sorted(RESERVED & set(patients))
    if reserved:
        raise GliaflowError(
            f"a patient in {folder} is called {reserved[0]}, as a file or folder of the output is; "
            "rename the patient's folder"
        )
    _check_output(out)
    if not patients:
        raise _nobody_predicted(folder, out, refused)
    section = project.params.evaluate
    model = _model_reference(project, model_file)
    runtime = _runtime(project, model, patients, folder, exact=exact)
    post = postprocessing.PostProcessing.from_params(section)
    slices, unreadable = segment(runtime, patients, folder, out, post=post, overlays=overlays)
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
        f"({comparison.runtime}, {comparison.differing_share:.4%} of pixels differ from Keras on "
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
        read = _read_ahead(_read_all(patients, folder, runtime.shape))
        for patient in progress.track(read, total=len(patients), label="predicting"):
            if patient.scan is None:
                refused += _faults(patient, runtime.shape)
                continue
            mask = postprocessing.segment_scan(
                runtime.predict, patient.scan.images, post, model_name=runtime.model_name
            ).mask
            written.append(writer.submit(_write_patient, patient, mask, out, overlays))
    return [row for rows in written for row in rows.result()], refused


def _check_arguments(folder: Path, out: Path, model_file: Path | None) -> None:
    """Make sure that the paths can be printed, and that the model is a file if it is there."""
    for path in (folder, out, *([model_file] if model_file else [])):
        if fault := scans.print_fault(str(path)):
            raise GliaflowError(
                f"{sources.printable(path)} cannot be used as a path ({fault}); rename it"
            )
    if model_file is None:
        return
    try:
        status = model_file.stat()
        if stat.S_ISREG(status.st_mode):
            model_file.open("rb").close()
    except FileNotFoundError:
        return  # whoever loads it says so
    except OSError as error:
        raise GliaflowError(
            f"{model_file} cannot be read ({error.strerror}); give another file with --model"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise GliaflowError(
            f"{model_file} is {sources.kind_of(status)}; expected a .keras file: give one with "
            "--model"
        )


def _check_output(out: Path) -> None:
    """Make sure that `out` is an empty folder, or a new one that can be created and written."""
    try:
        is_new = not out.exists()
        if is_new and out.is_symlink():
            raise GliaflowError(f"{out} is a link to nothing; give another folder with --out")
        if not is_new and (not out.is_dir() or any(out.iterdir())):
            raise GliaflowError(f"{out} exists and is not empty; give a new folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        if is_new:
            out.rmdir()
    except OSError as error:
        raise GliaflowError(
            f"{out} cannot be written ({error.strerror}); give another folder with --out"
        ) from error


def _patients(folder: Path, limits: Limits) -> tuple[dict[str, list[Path]], list[dict[str, Any]]]:
    """Map each patient below a folder to its tif files; equal copies count once.

    Returns:
        The patients, and rows of refused.csv for all that is not read.
    """
    _check_is_folder(folder)
    listing = sources.list_folder(folder)
    of_patients = [file for file in listing.files if file.patient]
    if not of_patients and not listing.skipped:
        raise GliaflowError(f"{folder} contains no tif; expected <patient>/<patient>_<n>.tif in it")
    sources.check_patients(of_patients, limits, str(folder))
    refused = [_refusal(item.patient, item.path, item.reason, NAMES) for item in listing.skipped]
    excesses = sources.find_excesses(of_patients, limits)
    refused += [
        _refusal(excess.patient, excess.file, excess.found, f"at most {excess.allowed}")
        for excess in excesses
    ]
    files_of = defaultdict(list)
    for file in of_patients:
        files_of[file.patient].append(file)
    patients = {}
    for patient in sorted(files_of.keys() - {excess.patient for excess in excesses}):
        kept, faults = _unique(files_of[patient])
        refused += faults
        if not faults:
            patients[patient] = [Path(file.where) for file in kept]
    return patients, refused


def _check_is_folder(folder: Path) -> None:
    try:
        status = folder.stat()
    except FileNotFoundError as error:
        raise GliaflowError(
            f"{folder} is not a folder, it does not exist; expected one with "
            "<patient>/<patient>_<n>.tif in it"
        ) from error
    except OSError as error:
        raise GliaflowError(
            f"{folder} cannot be read ({error.strerror}); expected a folder with "
            "<patient>/<patient>_<n>.tif in it"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise GliaflowError(
            f"{folder} is {sources.kind_of(status)}, not a folder; expected one with "
            "<patient>/<patient>_<n>.tif in it"
        )


def _unique(files: list[SourceFile]) -> tuple[list[SourceFile], list[dict[str, Any]]]:
    """Return the files of a patient without equal copies, and rows for copies that differ."""
    patient, expected = files[0].patient, "equal copies of a slice: remove one of them"
    try:
        kept, differing = sources.unique_copies(files)
    except (GliaflowError, OSError) as error:  # one of the copies cannot be read
        return [], [_refusal(patient, "", str(error), expected)]
    return kept, [
        _refusal(patient, other.inside, f"other content than {first.inside}", expected)
        for first, other in differing
    ]


def _refusal(patient: str, file: str, found: str, expected: str) -> dict[str, Any]:
    """Return a row of refused.csv."""
    return {"patient": patient, "file": file, "found": found, "expected": expected}


def _model_reference(project: Project, model_file: Path | None) -> ModelReference:
    """Refer to the model of a file, or to the champion."""
    if model_file is not None:
        key = files.sha256(model_file) if model_file.is_file() else ""
        load = partial(_load, model_files.load_model, model_file)
        return ModelReference(key, str(model_file), load)
    registry = open_registry(project)
    champion = registry.champion()
    if champion is None:
        raise GliaflowError(
            "there is no champion yet; train and judge a model with `gliaflow run`, or give a file "
            "with --model"
        )
    load = partial(registry.load, champion)
    return ModelReference(champion.digest, f"version {champion.version}", load)


def _load(load: Callable[[Any], Any], model: Any) -> Any:
    """Load a model and make sure that it maps slices to probabilities.

    Raises:
        GliaflowError: its input or output has another shape.
    """
    native_logs.import_keras()
    loaded = load(model)
    inputs, outputs = ([tuple(t.shape) for t in side] for side in (loaded.inputs, loaded.outputs))
    (height, width) = inputs[0][1:3] if len(inputs[0]) == 4 else (None, None)
    if inputs != [(None, height, width, 3)] or outputs != [(None, height, width, 1)] or not height:
        raise GliaflowError(
            f"the model takes {inputs} and gives {outputs}; expected slices (height, width, 3) and "
            "probabilities of the same size: use a model that gliaflow trained"
        )
    return loaded


def _runtime(
    project: Project,
    reference: ModelReference,
    patients: dict[str, list[Path]],
    folder: Path,
    *,
    exact: bool,
) -> runtimes.Runtime:
    """Return the fastest runtime of a model; compare runtimes on these scans if none is cached."""
    cache = project.local.runtimes / reference.key[:16]
    if reference.key:
        cached = runtimes.load_cached(cache, exact=exact, load=reference.load)
        if cached is not None:
            return cached
    model = reference.load()
    shape = model.inputs[0].shape[1:]
    sample = _sample(_read_all(patients, folder, shape), shape, model.name)
    threshold = project.params.evaluate.threshold
    return runtimes.select(cache, model, sample, threshold=threshold, exact=exact)


def _sample(
    patients: Iterator["ReadPatient"], shape: tuple[int, ...], model_name: str
) -> np.ndarray:
    """Return slices to compare runtimes on; a black one if no patient can be read."""
    scans_read: list[np.ndarray] = []
    for patient in patients:
        if patient.scan is not None:
            images = patient.scan.images
            scans_read.append(intensity.scale_for_model(model_name, images, images))
        if sum(map(len, scans_read)) >= SAMPLE_SLICES:
            break
    if not scans_read:
        return np.zeros((1, *shape), np.uint8)
    return runtimes.sample_slices(scans_read, SAMPLE_SLICES)


@dataclass(frozen=True)
class ReadPatient:
    """The files of a patient.

    rows: as in the manifest, by slice. scan: None if the patient cannot be predicted.
    has_masks: (S,) bool, whether a reference mask came with the slice.
    """

    name: str
    rows: list[dict[str, Any]]
    scan: Scan | None
    has_masks: np.ndarray


def _read_all(
    patients: dict[str, list[Path]], folder: Path, shape: tuple[int, ...]
) -> Iterator[ReadPatient]:
    height, width, _ = shape
    for name, paths in sorted(patients.items()):
        read = patient_files.read_patient(
            name, paths, root=folder.resolve(), needs_masks=False, plane=(height, width)
        )
        fits = read.scan is not None and read.scan.images.shape[1:] == shape
        has_masks = np.array([row["mask_file"] is not None for row in read.rows])
        yield ReadPatient(name, read.rows, read.scan if fits else None, has_masks)


def _faults(patient: ReadPatient, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return rows of refused.csv for a patient that cannot be predicted, one per bad file."""
    expected = "x".join(map(str, shape)) + " uint8, one image per slice number"
    rows = []
    for row in patient.rows:
        if fault := _fault_of_image(row, shape):
            file = row["file"] or row["mask_file"]
            rows.append(_refusal(patient.name, file, fault, expected))
        of_image = (row["height"] or shape[0], row["width"] or shape[1], 1)
        if fault := _fault_of_mask(row, of_image):
            of_mask = f"{'x'.join(map(str, of_image))}, the size of its image"
            rows.append(_refusal(patient.name, row["mask_file"], fault, of_mask))
    return rows or [_refusal(patient.name, "", "slices of different sizes", expected)]


def _fault_of_image(row: dict[str, Any], shape: tuple[int, ...]) -> str:
    """Return what is wrong with the image of a slice; empty if nothing is."""
    size = tuple(row[key] for key in ("height", "width", "channels"))
    if row["misnamed"]:
        return "the name does not match its folder"
    if row["file"] is None:
        return "a mask without an image"
    if fault := patient_files.unreadable_files(row).get("file"):
        return fault
    if size != shape or row["dtype"] != "uint8":
        return f"{'x'.join(map(str, size))} {row['dtype']}"
    return row["numbering"] if "twice" in (row["numbering"] or "") else ""


def _fault_of_mask(row: dict[str, Any], expected: tuple[int, ...]) -> str:
    """Return what is wrong with the mask of a slice; empty if nothing is, or there is none.

    Args:
        expected: its height, width and channels.
    """
    if fault := patient_files.unreadable_files(row).get("mask_file"):
        return fault
    size = tuple(row[key] for key in ("mask_height", "mask_width", "mask_channels"))
    is_other_size = row["mask_height"] is not None and size != expected
    return "x".join(map(str, size)) if is_other_size else ""


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
