"""The scans that `gliaflow predict` was given: what is read, and why the rest is not."""

import stat
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adapters.scans import duplicates, folders, patient_files
from pipeline.adapters.scans.arrays import Scan
from pipeline.adapters.scans.limits import Limits, check_patients, find_excesses
from pipeline.adapters.scans.listing import SourceFile
from pipeline.adapters.scans.paths import kind_of, printable
from pipeline.domain import scans
from pipeline.errors import GliaflowError

NAMES = "regular files <patient>/<patient>_<n>.tif"


def check_arguments(folder: Path, out: Path, model_file: Path | None) -> None:
    """Make sure that the paths can be printed, and that the model is a file if it is there."""
    for path in (folder, out, *([model_file] if model_file else [])):
        if fault := scans.print_fault(str(path)):
            raise GliaflowError(f"{printable(path)} cannot be used as a path ({fault}); rename it")
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
            f"{model_file} is {kind_of(status)}; expected a .keras file: give one with --model"
        )


def check_output(out: Path) -> None:
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


def find_patients(
    folder: Path, limits: Limits
) -> tuple[dict[str, list[Path]], list[dict[str, Any]]]:
    """Map each patient below a folder to its tif files; equal copies count once.

    Returns:
        The patients, and rows of refused.csv for all that is not read.
    """
    _check_is_folder(folder)
    listing = folders.list_folder(folder)
    of_patients = [file for file in listing.files if file.patient]
    if not of_patients and not listing.skipped:
        raise GliaflowError(f"{folder} contains no tif; expected <patient>/<patient>_<n>.tif in it")
    check_patients(of_patients, limits, str(folder))
    refused = [_refusal(item.patient, item.path, item.reason, NAMES) for item in listing.skipped]
    excesses = find_excesses(of_patients, limits)
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
            f"{folder} is {kind_of(status)}, not a folder; expected one with "
            "<patient>/<patient>_<n>.tif in it"
        )


def _unique(files: list[SourceFile]) -> tuple[list[SourceFile], list[dict[str, Any]]]:
    """Return the files of a patient without equal copies, and rows for copies that differ."""
    patient, expected = files[0].patient, "equal copies of a slice: remove one of them"
    try:
        kept, differing = duplicates.unique_copies(files)
    except (GliaflowError, OSError) as error:  # one of the copies cannot be read
        return [], [_refusal(patient, "", str(error), expected)]
    return kept, [
        _refusal(patient, other.inside, f"other content than {first.inside}", expected)
        for first, other in differing
    ]


def _refusal(patient: str, file: str, found: str, expected: str) -> dict[str, Any]:
    """Return a row of refused.csv."""
    return {"patient": patient, "file": file, "found": found, "expected": expected}


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


def read_all(
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


def faults(patient: ReadPatient, shape: tuple[int, ...]) -> list[dict[str, Any]]:
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
