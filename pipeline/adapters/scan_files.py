"""A patient's tif files, paired, decoded and described: rows of the manifest, and arrays.

What was read can be kept in a folder of its own, `<patient>/` with the arrays and a note. It
is taken again as long as all that decides it is the same: the key in the note says so.
"""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adapters import files
from pipeline.adapters.arrays import Scan
from pipeline.domain import scans

COLUMNS = (
    "patient", "site", "slice", "file", "mask_file", "sha256", "mask_sha256", "pixels",
    "height", "width", "channels", "dtype", "pre_mean", "flair_mean", "post_mean", "blank",
    "missing", "mask_height", "mask_width", "mask_channels", "mask_dtype", "mask_values",
    "tumour_pixels", "unreadable", "misnamed", "numbering", "same_image_as", "conflict",
)  # fmt: skip


NOTE = "read.json"


@dataclass(frozen=True)
class Patient:
    """What was found: a row for every slice, and the arrays where every slice is sound."""

    rows: list[dict[str, Any]]
    scan: Scan | None


def read(patient: str, paths: list[Path], *, root: Path, needs_masks: bool = True) -> Patient:
    """Read all files of a patient.

    Args:
        paths: its tif files; files of equal name and content (from two batches) count once.
        root: what the manifest's file names are relative to.
        needs_masks: for training. Without (to predict), slices that have no mask are sound,
            and so is a scan with gaps in its numbers.

    Returns:
        Rows sorted by slice number, each with every fact of `COLUMNS` that is known.
    """
    pairs, rows = _pairs(patient, paths, root)
    images, masks = [], []
    for number, image_path, mask_path in pairs:
        row, image, mask = _slice(patient, number, image_path, mask_path, root)
        rows.append(row)
        images.append(image)
        masks.append(mask)
    rows.sort(key=lambda row: (row["slice"] is None, row["slice"], row["file"] or ""))
    numbers = [row["slice"] for row in rows if row["slice"] is not None]
    if rows:
        rows[0]["numbering"] = scans.numbering_fault(numbers) or None
    fault = scans.numbering_fault(numbers) if needs_masks else scans.doubled(numbers)
    sound = not fault and not any(row["unreadable"] or row["misnamed"] for row in rows)
    return Patient(rows, _stack(images, masks, needs_masks) if sound else None)


def merge(
    patient: str, versions: list[list[Path]], *, root: Path, plane: tuple[int, int]
) -> tuple[list[Path], list[dict[str, Any]]]:
    """The files of a patient who came in several batches.

    Slices that are there already with the same bytes count once, and new numbers join in.
    Where a later batch holds other bytes under a known name, it takes the earlier one's place
    if that was not fit to use (it was mended); otherwise the earlier one stays, and what
    differs is a conflict. Nothing is replaced silently.

    Args:
        versions: the tif files of each batch, in the order in which they arrived.
        plane: height and width in pixels that a fit slice has.

    Returns:
        The files to read, and a row for every slice that is in conflict.
    """
    kept = {path.name: path for path in versions[0]}
    conflicts: list[dict[str, Any]] = []
    for later in versions[1:]:
        differing = {
            path.name
            for path in later
            if path.name in kept and path.read_bytes() != kept[path.name].read_bytes()
        }
        if differing and not _is_fit(patient, list(kept.values()), root, plane):
            kept = {path.name: path for path in later}
        elif differing:
            conflicts += _conflicts(patient, sorted(differing), kept, later, root)
        else:
            kept |= {path.name: path for path in later if path.name not in kept}
    return list(kept.values()), conflicts


def key(versions: list[list[Path]], *, root: Path, rules: list[Any]) -> str:
    """SHA-256 of what decides how a patient is read, as hex.

    Args:
        versions: the tif files of each batch, as for `merge`; names, order and bytes count.
        root: what their names are relative to.
        rules: what else decides: values that JSON knows.
    """
    named = [[(str(p.relative_to(root)), files.sha256(p)) for p in paths] for paths in versions]
    return _sha256(json.dumps([rules, named]).encode())


def keep(
    kept: Path, patient: str, key: str, rows: list[dict[str, Any]], *, arrays: Path | None
) -> None:
    """Note what was read, so that `take` finds it.

    Args:
        rows: the patient's rows of the manifest.
        arrays: the folder of its arrays, which are linked and take no room of their own; None
            for a patient who has none.
    """
    with files.replacing(kept / patient) as beside:
        beside.mkdir()
        for path in arrays.iterdir() if arrays else ():
            _link(path, beside / path.name)
        stamps = {path.name: _stamp(path) for path in sorted(beside.iterdir())}
        files.write_json(beside / NOTE, {"key": key, "arrays": stamps, "rows": rows})


def take(kept: Path, patient: str, key: str, *, arrays: Path) -> list[dict[str, Any]] | None:
    """The rows of a patient who was read before under the same key; its arrays go to `arrays`.

    None, and nothing done, where there is no such note, or a kept array was written to since.
    """
    folder = kept / patient
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        if note["key"] != key:
            return None
        stamps, rows = note["arrays"], note["rows"]
        if any(_stamp(folder / name) != stamp for name, stamp in stamps.items()):
            return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if stamps:
        with files.replacing(arrays) as beside:
            beside.mkdir()
            for name in stamps:
                _link(folder / name, beside / name)
    return rows


def forget(kept: Path, others_than: Collection[str]) -> None:
    """Remove what is kept of patients who are gone, and what a killed run left."""
    for folder in kept.iterdir() if kept.is_dir() else ():
        if folder.name not in others_than:
            shutil.rmtree(folder)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _stamp(path: Path) -> list[int]:
    """Bytes and time of the last change in ns: what is written in place does not go unseen."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _is_fit(patient: str, paths: list[Path], root: Path, plane: tuple[int, int]) -> bool:
    found = read(patient, paths, root=root)
    return (
        found.scan is not None
        and found.scan.images.shape[1:3] == plane
        and all(row["mask_values"] in ("0", "255", "0 255") for row in found.rows)
    )


def _conflicts(
    patient: str, names: list[str], kept: dict[str, Path], later: list[Path], root: Path
) -> list[dict[str, Any]]:
    """A row for every slice whose image or mask differs from the one that is there."""
    there = {path.name: path for path in later}
    rows = []
    for name in names:
        parsed = scans.parse_name(name)
        file = str(there[name].relative_to(root))
        rows.append(
            _row(
                patient,
                parsed.slice if parsed else None,
                file=file,
                mask_file=file,
                conflict=f"other content than {kept[name].relative_to(root)}",
            )
        )
    return rows


def _pairs(
    patient: str, paths: list[Path], root: Path
) -> tuple[list[tuple[int, Path | None, Path | None]], list[dict[str, Any]]]:
    """Images with their masks by number, sorted; and rows for files whose names do not fit."""
    images: dict[int, list[Path]] = defaultdict(list)
    masks: dict[int, list[Path]] = defaultdict(list)
    strays = []
    for path in sorted(paths):
        name = scans.parse_name(path.name)
        if name is None or name.patient != patient:
            strays.append(_row(patient, None, file=str(path.relative_to(root)), misnamed=path.name))
            continue
        same = (masks if name.is_mask else images)[name.slice]
        if not any(_same_bytes(path, other) for other in same):
            same.append(path)
    pairs = []
    for number in sorted({*images, *masks}):
        some, others = images[number] or [None], masks[number] or [None]
        for i in range(max(len(some), len(others))):
            pairs.append((number, some[min(i, len(some) - 1)], others[min(i, len(others) - 1)]))
    return pairs, strays


def _slice(
    patient: str, number: int, image_path: Path | None, mask_path: Path | None, root: Path
) -> tuple[dict[str, Any], np.ndarray | None, np.ndarray | None]:
    row = _row(patient, number)
    image = mask = None
    reasons = []
    if image_path is not None:
        digest, image, reason = _opened(image_path)
        row |= {"file": str(image_path.relative_to(root)), "sha256": digest}
        reasons += [f"image: {reason}"] if reason else []
        if image is not None:
            row |= scans.image_facts(image)
            row["pixels"] = "" if scans.is_flat(image) else _sha256(image.tobytes())[:16]
    if mask_path is not None:
        digest, mask, reason = _opened(mask_path)
        row |= {"mask_file": str(mask_path.relative_to(root)), "mask_sha256": digest}
        reasons += [f"mask: {reason}"] if reason else []
        if mask is not None:
            row |= scans.mask_facts(mask)
    row["unreadable"] = "; ".join(reasons) or None
    return row, image, mask


def _opened(path: Path) -> tuple[str | None, np.ndarray | None, str]:
    """SHA-256 and pixels of a tif; why there are no pixels, or nothing."""
    try:
        content = path.read_bytes()
    except PermissionError:
        return None, None, "may not be read"
    return _sha256(content), *_decode(content)


def _same_bytes(path: Path, other: Path) -> bool:
    try:
        return path.read_bytes() == other.read_bytes()
    except PermissionError:
        return False


def _stack(
    images: list[np.ndarray | None], masks: list[np.ndarray | None], needs_masks: bool
) -> Scan | None:
    """One array each, None where slices differ in size or type, or one lacks its image or mask."""
    if not images or any(image is None for image in images):
        return None
    shape = images[0].shape
    if shape[2:] != (3,) or any(i.shape != shape or i.dtype != np.uint8 for i in images):
        return None
    if not needs_masks:
        masks = [np.zeros(shape[:2], np.uint8) if mask is None else mask for mask in masks]
    if any(mask is None or mask.shape != shape[:2] for mask in masks):
        return None
    return Scan(np.stack(images), np.stack(masks).astype(bool).astype(np.uint8))


def _row(patient: str, number: int | None, **facts: Any) -> dict[str, Any]:
    row = dict.fromkeys(COLUMNS)
    return row | {"patient": patient, "site": scans.site_of(patient), "slice": number} | facts


def _decode(content: bytes) -> tuple[np.ndarray | None, str]:
    try:
        return files.decode_image(content), ""
    except ValueError as error:
        return None, str(error)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
