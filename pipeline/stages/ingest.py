"""Convert the files of every patient to arrays, and describe every slice in the manifest.

A patient is taken from a cache while its files, and the code and libraries that read them,
are unchanged.
"""

from collections import defaultdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.adapters.process import progress
from pipeline.adapters.scans import arrays, batches, patient_files, read_cache
from pipeline.adapters.storage import csv_files
from pipeline.errors import GliaflowError
from pipeline.params import Params

# Columns of the manifest that hold whole numbers, also where some are missing.
INTEGER_COLUMNS = (
    "slice", "height", "width", "channels", "mask_height", "mask_width", "mask_channels",
    "tumour_pixels",
)  # fmt: skip
# Libraries that decode images; their versions are part of the cache key.
LIBRARIES = ("numpy", "opencv-python-headless")


def run(
    params: Params,
    *,
    code: str,
    raw: Path,
    scans: Path,
    manifest: Path,
    cache: Path | None = None,
) -> None:
    """Read `raw/<batch>/<patient>/*.tif`; write `scans/<patient>/` and one row per slice.

    Args:
        code: digest of the modules that this stage depends on.
        cache: folder with what was read before. It is not part of the graph: it changes how
            long the stage takes, not its results. None: decode every patient.

    Raises:
        GliaflowError: there are no scans.
    """
    patients = _patients(raw)
    if not patients:
        raise GliaflowError(f"{raw} holds no scans; run `dvc repro fetch`")
    scans.mkdir(parents=True, exist_ok=True)
    plane = (params.validate_.height_px, params.validate_.width_px)
    shaping = [*plane, code, *(f"{name} {metadata.version(name)}" for name in LIBRARIES)]
    read = partial(_read, root=raw, scans=scans, plane=plane, cache=cache, shaping=shaping)
    results = list(
        progress.map_parallel(
            read, sorted(patients.items()), workers=params.ingest.workers, label="reading patients"
        )
    )
    if cache is not None:
        read_cache.prune(cache, keep=patients)
    order = {batch.name: i for i, batch in enumerate(batches.in_arrival_order(raw))}
    table = _table([row for rows, _ in results for row in rows], order)
    csv_files.write_table(manifest, table)
    _report(table, decoded=sum(is_decoded for _, is_decoded in results))


def _report(table: pd.DataFrame, *, decoded: int) -> None:
    patients = table.patient.nunique()
    print(
        f"ingest: {patients} patients, {len(table)} slices, "
        f"{int((table.tumour_pixels > 0).sum())} with tumour, "
        f"{int(table.unreadable.notna().sum())} unreadable; "
        f"{decoded} patients decoded, {patients - decoded} from the cache"
    )


def _patients(raw: Path) -> dict[str, list[list[Path]]]:
    """Return the tif files of each patient, one list per batch, in the order of arrival."""
    patients: dict[str, list[list[Path]]] = defaultdict(list)
    for batch in batches.in_arrival_order(raw):
        for folder in sorted(path for path in batch.iterdir() if path.is_dir()):
            paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".tif", ".tiff"})
            if paths:
                patients[folder.name].append(paths)
    return patients


def _read(
    item: tuple[str, list[list[Path]]],
    *,
    root: Path,
    scans: Path,
    plane: tuple[int, int],
    cache: Path | None,
    shaping: list[Any],
) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows of a patient, and True if its files were decoded, False if cached."""
    patient, versions = item
    if cache is None:
        return _decode(patient, versions, root=root, scans=scans, plane=plane)[0], True
    key = read_cache.cache_key(versions, root=root, shaping=shaping)
    cached = read_cache.fetch(cache, patient, key, arrays=scans / patient)
    if cached is not None:
        return cached, False
    rows, arrays_folder = _decode(patient, versions, root=root, scans=scans, plane=plane)
    read_cache.store(cache, patient, key, rows, arrays=arrays_folder)
    return rows, True


def _decode(
    patient: str, versions: list[list[Path]], *, root: Path, scans: Path, plane: tuple[int, int]
) -> tuple[list[dict[str, Any]], Path | None]:
    """Return the rows of a patient, and the folder of its arrays; None if it has none."""
    paths, conflicts = patient_files.merge_batches(patient, versions, root=root, plane=plane)
    read = patient_files.read_patient(patient, paths, root=root, plane=plane)
    rows = [*read.rows, *conflicts]
    if read.scan is None:
        return rows, None
    arrays.save(scans, patient, read.scan)
    return rows, scans / patient


def _table(rows: list[dict[str, Any]], order: dict[str, int]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(patient_files.COLUMNS))
    table = table.astype(dict.fromkeys(INTEGER_COLUMNS, "Int64"))
    return table.assign(same_image_as=_same_image(table, order))


def _same_image(table: pd.DataFrame, order: dict[str, int]) -> pd.Series:
    """Return, for each slice, the other patients who held the same image no later, each with its file.

    None where there are none: a copy that arrives later does not count against a scan. Uniform
    images are not compared: they all look alike.

    Args:
        order: place of each batch, by name, in the order of arrival; batches are the first
            part of a file's path.
    """
    holders: dict[str, dict[str, tuple[int, str]]] = defaultdict(dict)
    for digest, patient, file in zip(table.pixels, table.patient, table.file, strict=True):
        if isinstance(digest, str) and digest:
            first = order[file.partition("/")[0]], file
            holders[digest][patient] = min(first, holders[digest].get(patient, first))
    return pd.Series(
        [
            _others(holders.get(digest, {}), patient)
            for digest, patient in zip(table.pixels, table.patient, strict=True)
        ],
        index=table.index,
        dtype=object,
    )


def _others(holders: dict[str, tuple[int, str]], patient: str) -> str | None:
    """Name the holders of an image who came no later than a patient; None if there are none.

    Args:
        holders: place in the order of arrival and file of each patient with the image.
    """
    others = [
        f"{other} ({file})"
        for other, (place, file) in sorted(holders.items())
        if other != patient and place <= holders[patient][0]
    ]
    return ", ".join(others) or None
