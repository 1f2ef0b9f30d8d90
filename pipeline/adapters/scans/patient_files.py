"""Pair, decode and describe a patient's tif files: rows of the manifest, and arrays."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adapters.scans import image_files, regular_files
from pipeline.adapters.scans.arrays import Scan
from pipeline.domain import scans

COLUMNS = (
    "patient", "site", "slice", "file", "mask_file", "sha256", "mask_sha256", "pixels",
    "height", "width", "channels", "dtype", "pre_mean", "flair_mean", "post_mean", "blank",
    "missing", "mask_height", "mask_width", "mask_channels", "mask_dtype", "mask_values",
    "tumour_pixels", "unreadable", "misnamed", "numbering", "same_image_as", "conflict",
)  # fmt: skip

Row = dict[str, Any]  # of the manifest: a fact for each of COLUMNS, None where it is unknown
MASK_VALUES = ("0", "255", "0 255")  # what a valid mask holds, as the manifest shows it


@dataclass(frozen=True)
class PatientScan:
    """What was read of a patient: a row for every slice; the arrays if every slice is valid."""

    rows: list[Row]
    scan: Scan | None


def read_patient(
    patient: str,
    paths: list[Path],
    *,
    root: Path,
    needs_masks: bool = True,
    plane: tuple[int, int] | None = None,
) -> PatientScan:
    """Read all files of a patient.

    Args:
        paths: its tif files; files of one number with equal content, as from two batches,
            count once.
        root: folder that the manifest's file names are relative to.
        needs_masks: True for training. If False, as for prediction, slices without a mask
            are valid, and so is a scan with gaps in its numbers.
        plane: height and width in pixels of a slice that is fit to use. A scan with others is
            described, and has no arrays: hundreds of huge slices would fill the memory. None:
            every size is fit.

    Returns:
        Rows sorted by slice number; those of misnamed files come last.
    """
    pairs, rows = _pair_files(patient, paths, root)
    images, masks = [], []
    for number, image_path, mask_path in pairs:
        row, image, mask = _read_slice(patient, number, image_path, mask_path, root)
        rows.append(row)
        is_kept = _are_of_size(plane, image, mask)
        images.append(image if is_kept else None)
        masks.append(mask if is_kept else None)
    rows.sort(key=lambda row: (row["slice"] is None, row["slice"], row["file"] or ""))
    numbers = [row["slice"] for row in rows if row["slice"] is not None]
    if rows:
        rows[0]["numbering"] = scans.numbering_fault(numbers) or None
    fault = scans.numbering_fault(numbers) if needs_masks else scans.doubled(numbers)
    is_valid = not fault and not any(row["unreadable"] or row["misnamed"] for row in rows)
    return PatientScan(rows, _stack(images, masks, needs_masks) if is_valid else None)


def unreadable_files(row: Row) -> dict[str, str]:
    """Return why files of a slice cannot be decoded, by their columns `file` and `mask_file`."""
    faults: str = row["unreadable"] or ""
    image, separator, mask = faults.partition("; mask: ")
    if faults.startswith("mask: "):
        return {"mask_file": faults}
    named = {"file": image, "mask_file": separator and f"mask: {mask}"}
    return {column: fault for column, fault in named.items() if fault}


def merge_batches(
    patient: str, versions: list[list[Path]], *, root: Path, plane: tuple[int, int]
) -> tuple[list[Path], list[Row]]:
    """Merge the files of a patient who came in several batches.

    Slices that came before with the same bytes count once. Slices with new numbers are added.
    If a later batch has other bytes under a known name, it depends on the earlier files. If
    they are not fit to use, the later batch replaces all of them: that is how a broken patient
    is fixed. Otherwise the earlier files stay, and every file that differs is a conflict.
    Nothing is replaced silently.

    Args:
        versions: the tif files of each batch, in order of arrival.
        root: folder that the manifest's file names are relative to.
        plane: height and width in pixels of a slice that is fit to use.

    Returns:
        The files to read, and a row for every file that is in conflict.
    """
    current = {path.name: path for path in versions[0]}
    conflicts: list[Row] = []
    for batch in versions[1:]:
        later = {path.name: path for path in batch}
        differing = sorted(
            name
            for name, path in later.items()
            if name in current and not _have_same_bytes(path, current[name])
        )
        if differing and not _is_fit(patient, list(current.values()), root, plane):
            current = later
        elif differing:
            conflicts += [
                _conflict(patient, earlier=current[name], later=later[name], root=root)
                for name in differing
            ]
        else:
            current |= {name: path for name, path in later.items() if name not in current}
    return list(current.values()), conflicts


def _is_fit(patient: str, paths: list[Path], root: Path, plane: tuple[int, int]) -> bool:
    read = read_patient(patient, paths, root=root, plane=plane)
    return read.scan is not None and all(map(_has_fit_mask, read.rows))


def _has_fit_mask(row: Row) -> bool:
    is_plausible = not scans.covers_too_much(
        row["tumour_pixels"], height=row["mask_height"], width=row["mask_width"]
    )
    return is_plausible and row["mask_dtype"] == "uint8" and row["mask_values"] in MASK_VALUES


def _conflict(patient: str, *, earlier: Path, later: Path, root: Path) -> Row:
    """Return the row of a file whose content differs from the one that came before."""
    parsed = scans.parse_name(later.name)
    file = str(later.relative_to(root))
    return _row(
        patient,
        parsed.slice if parsed else None,
        file=file,
        mask_file=file,
        conflict=f"other content than {earlier.relative_to(root)}",
    )


def _pair_files(
    patient: str, paths: list[Path], root: Path
) -> tuple[list[tuple[int, Path | None, Path | None]], list[Row]]:
    """Pair images with masks.

    Returns:
        (number, image, mask) sorted by number, None where a partner is missing; and rows of
        the files whose names do not fit. If a number has several different images or masks,
        it appears once for each.
    """
    images: dict[int, list[Path]] = defaultdict(list)
    masks: dict[int, list[Path]] = defaultdict(list)
    misnamed = []
    for path in sorted(paths):
        name = scans.parse_name(path.name)
        if name is None or name.patient != patient:
            file = str(path.relative_to(root))
            misnamed.append(_row(patient, None, file=file, misnamed=path.name))
            continue
        same_number = (masks if name.is_mask else images)[name.slice]
        if not any(_have_same_bytes(path, other) for other in same_number):
            same_number.append(path)
    pairs = [
        (number, image, mask)
        for number in sorted({*images, *masks})
        for image, mask in _align(images[number], masks[number])
    ]
    return pairs, misnamed


def _align(images: list[Path], masks: list[Path]) -> list[tuple[Path | None, Path | None]]:
    """Pair two lists; the shorter one repeats its last path, an empty one gives None."""
    count = max(len(images), len(masks))

    def at(paths: list[Path], i: int) -> Path | None:
        return paths[min(i, len(paths) - 1)] if paths else None

    return [(at(images, i), at(masks, i)) for i in range(count)]


def _read_slice(
    patient: str, number: int, image_path: Path | None, mask_path: Path | None, root: Path
) -> tuple[Row, np.ndarray | None, np.ndarray | None]:
    """Return the row of a slice, its image and its mask; None where one cannot be decoded."""
    row = _row(patient, number)
    image = mask = None
    faults = []
    if image_path is not None:
        digest, image, fault = _read_image(image_path)
        row |= {"file": str(image_path.relative_to(root)), "sha256": digest}
        faults += [f"image: {fault}"] if fault else []
        if image is not None:
            row |= scans.image_facts(image)
            row["pixels"] = "" if scans.is_flat(image) else _sha256(image.tobytes())[:16]
    if mask_path is not None:
        digest, mask, fault = _read_image(mask_path)
        row |= {"mask_file": str(mask_path.relative_to(root)), "mask_sha256": digest}
        faults += [f"mask: {fault}"] if fault else []
        if mask is not None:
            row |= scans.mask_facts(mask)
    row["unreadable"] = "; ".join(faults) or None
    return row, image, mask


def _read_image(path: Path) -> tuple[str | None, np.ndarray | None, str]:
    """Return SHA-256 and pixels of a tif, and why there are no pixels; empty if there are."""
    try:
        content = regular_files.read(path)
    except PermissionError:
        return None, None, "may not be read"
    except OSError as error:
        return None, None, f"cannot be read ({error.strerror})"
    try:
        return _sha256(content), image_files.decode_image(content), ""
    except ValueError as error:
        return _sha256(content), None, str(error)


def _have_same_bytes(path: Path, other: Path) -> bool:
    try:
        return regular_files.read(path) == regular_files.read(other)
    except OSError:
        return False


def _are_of_size(plane: tuple[int, int] | None, *decoded: np.ndarray | None) -> bool:
    return plane is None or all(p is None or p.shape[:2] == plane for p in decoded)


def _stack(
    images: Sequence[np.ndarray | None], masks: Sequence[np.ndarray | None], needs_masks: bool
) -> Scan | None:
    """Stack slices into a scan.

    Args:
        needs_masks: if False, a missing mask counts as empty.

    Returns:
        None if there are no slices, if slices differ in size, if one is not (H, W, 3) uint8,
        or if an image or mask is missing.
    """
    decoded = [image for image in images if image is not None]
    if not decoded or len(decoded) < len(images):
        return None
    shape = decoded[0].shape
    if shape[2:] != (3,) or any(i.shape != shape or i.dtype != np.uint8 for i in decoded):
        return None
    empty = None if needs_masks else np.zeros(shape[:2], np.uint8)
    filled = [empty if mask is None else mask for mask in masks]
    valid = [mask for mask in filled if mask is not None and mask.shape == shape[:2]]
    if len(valid) < len(filled):
        return None
    return Scan(np.stack(decoded), np.stack(valid).astype(bool).astype(np.uint8))


def _row(patient: str, number: int | None, **facts: Any) -> Row:
    row = dict.fromkeys(COLUMNS)
    return row | {"patient": patient, "site": scans.site_of(patient), "slice": number} | facts


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
