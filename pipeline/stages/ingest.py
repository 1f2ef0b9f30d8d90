"""Turn the files of every patient into arrays, and describe every slice in the manifest.

A patient who was read before from the same files by the same code is not decoded again.
"""

import hashlib
import sys
from collections import defaultdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.adapters import arrays, batches, files, progress, scan_files
from pipeline.domain import scans as scan_rules
from pipeline.errors import GliaflowError
from pipeline.params import Params

INTEGERS = (
    "slice", "height", "width", "channels", "mask_height", "mask_width", "mask_channels",
    "tumour_pixels",
)  # fmt: skip


# What decides, beside a patient's files and the plane, which rows and arrays come of them.
MODULES = (arrays, batches, files, scan_files, scan_rules, sys.modules[__name__])
LIBRARIES = ("numpy", "opencv-python-headless")


def run(
    params: Params, *, raw: Path, scans: Path, manifest: Path, kept: Path | None = None
) -> None:
    """Read `raw/<batch>/<patient>/*.tif`; write `scans/<patient>/` and one row a slice.

    `kept` is outside the graph and decides nothing but the time this takes: it holds what was
    read of each patient, to be taken again. Without it every patient is read.
    """
    patients = _patients(raw)
    if not patients:
        raise GliaflowError(f"{raw} holds no scans; run `dvc repro fetch`")
    scans.mkdir(parents=True, exist_ok=True)
    plane = (params.validate_.height_px, params.validate_.width_px)
    read = partial(_read, root=raw, scans=scans, plane=plane, kept=kept, code=_code())
    found = list(
        progress.spread(
            read, sorted(patients.items()), workers=params.ingest.workers, label="reading patients"
        )
    )
    if kept is not None:
        scan_files.forget(kept, others_than=patients)
    table = _table([row for rows, _ in found for row in rows])
    files.write_table(manifest, table)
    print(
        f"ingest: {table.patient.nunique()} patients, {len(table)} slices, "
        f"{int((table.tumour_pixels > 0).sum())} with tumour, "
        f"{int(table.unreadable.notna().sum())} unreadable; "
        f"{sum(is_new for _, is_new in found)} of the patients read anew"
    )


def _code() -> list[str]:
    """SHA-256 of each of `MODULES`, and the versions of `LIBRARIES`."""
    own = [hashlib.sha256(Path(one.__file__ or "").read_bytes()).hexdigest() for one in MODULES]
    return own + [f"{name} {metadata.version(name)}" for name in LIBRARIES]


def _patients(raw: Path) -> dict[str, list[list[Path]]]:
    """The tif files of each patient, a list for every batch, in the order of their arrival."""
    found: dict[str, list[list[Path]]] = defaultdict(list)
    for batch in batches.in_order(raw):
        for folder in sorted(path for path in batch.iterdir() if path.is_dir()):
            paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".tif", ".tiff"})
            if paths:
                found[folder.name].append(paths)
    return found


def _read(
    item: tuple[str, list[list[Path]]],
    *,
    root: Path,
    scans: Path,
    plane: tuple[int, int],
    kept: Path | None,
    code: list[str],
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of a patient, and whether it was read anew."""
    patient, versions = item
    if kept is None:
        return _decode(patient, versions, root=root, scans=scans, plane=plane)[0], True
    key = scan_files.key(versions, root=root, rules=[*plane, *code])
    known = scan_files.take(kept, patient, key, arrays=scans / patient)
    if known is not None:
        return known, False
    rows, made = _decode(patient, versions, root=root, scans=scans, plane=plane)
    scan_files.keep(kept, patient, key, rows, arrays=made)
    return rows, True


def _decode(
    patient: str, versions: list[list[Path]], *, root: Path, scans: Path, plane: tuple[int, int]
) -> tuple[list[dict[str, Any]], Path | None]:
    """The rows of a patient, and the folder of its arrays, None where it is not sound."""
    paths, conflicts = scan_files.merge(patient, versions, root=root, plane=plane)
    read = scan_files.read(patient, paths, root=root)
    if read.scan is not None:
        arrays.save(scans, patient, read.scan)
    return [*read.rows, *conflicts], None if read.scan is None else scans / patient


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(scan_files.COLUMNS))
    table = table.astype(dict.fromkeys(INTEGERS, "Int64"))
    table["same_image_as"] = _same_image(table)
    return table


def _same_image(table: pd.DataFrame) -> pd.Series:
    """For each slice the other patients that hold the very same pixels, blank between."""
    known = table.pixels.where(table.pixels != "")
    owners = table.assign(pixels=known).groupby("pixels").patient.unique()
    shared = {pixels: set(names) for pixels, names in owners.items() if len(names) > 1}
    return pd.Series(
        [
            " ".join(sorted(shared[pixels] - {patient})) if pixels in shared else None
            for pixels, patient in zip(known, table.patient, strict=True)
        ],
        index=table.index,
        dtype=object,
    )
