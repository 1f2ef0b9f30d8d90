"""Turn the files of every patient into arrays, and describe every slice in the manifest."""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.adapters import arrays, batches, files, progress, scan_files
from pipeline.errors import GliaflowError
from pipeline.params import Params

INTEGERS = (
    "slice", "height", "width", "channels", "mask_height", "mask_width", "mask_channels",
    "tumour_pixels",
)  # fmt: skip


def run(params: Params, *, raw: Path, scans: Path, manifest: Path) -> None:
    """Read `raw/<batch>/<patient>/*.tif`; write `scans/<patient>/` and one row a slice."""
    patients = _patients(raw)
    if not patients:
        raise GliaflowError(f"{raw} holds no scans; run `dvc repro fetch`")
    scans.mkdir(parents=True, exist_ok=True)
    plane = (params.validate_.height_px, params.validate_.width_px)
    read = partial(_read, root=raw, scans=scans, plane=plane)
    found = progress.spread(
        read, sorted(patients.items()), workers=params.ingest.workers, label="reading patients"
    )
    table = _table([row for rows in found for row in rows])
    files.write_table(manifest, table)
    print(
        f"ingest: {table.patient.nunique()} patients, {len(table)} slices, "
        f"{int((table.tumour_pixels > 0).sum())} with tumour, "
        f"{int(table.unreadable.notna().sum())} unreadable"
    )


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
    item: tuple[str, list[list[Path]]], *, root: Path, scans: Path, plane: tuple[int, int]
) -> list[dict[str, Any]]:
    patient, versions = item
    paths, conflicts = scan_files.merge(patient, versions, root=root, plane=plane)
    read = scan_files.read(patient, paths, root=root)
    if read.scan is not None:
        arrays.save(scans, patient, read.scan)
    return [*read.rows, *conflicts]


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
