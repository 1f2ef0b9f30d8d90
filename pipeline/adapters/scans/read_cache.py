"""Cache of decoded patients, so that `ingest` decodes only those that changed.

An entry is a folder named after the patient: its arrays and a record. The record holds the
entry's key, the patient's rows of the manifest, and size and time of each array.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline.adapters.scans import regular_files
from pipeline.adapters.storage import files, json_files

RECORD = "read.json"


def cache_key(versions: list[list[Path]], *, root: Path, shaping: list[Any]) -> str:
    """Return the SHA-256, as hex, of everything that decides how a patient is read.

    Args:
        versions: the tif files of each batch, as for `patient_files.merge_batches`; their
            names, order and bytes count.
        root: folder that their names are relative to.
        shaping: whatever else counts, such as code and library versions; JSON values.
    """
    named = [[(str(p.relative_to(root)), _digest(p)) for p in paths] for paths in versions]
    return hashlib.sha256(json.dumps([shaping, named]).encode()).hexdigest()


def _digest(path: Path) -> str:
    """SHA-256 of a file; other text for one that cannot be read."""
    try:
        return regular_files.sha256(path)
    except PermissionError:
        return "may not be read"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def store(
    cache: Path, patient: str, key: str, rows: list[dict[str, Any]], *, arrays: Path | None
) -> None:
    """Store what was read of a patient; replace an earlier entry.

    Args:
        rows: the patient's rows of the manifest.
        arrays: folder of its arrays; None if it has none. They are hard-linked where the file
            system allows it, so that they take no extra space.
    """
    with files.atomic_write(cache / patient) as entry:
        entry.mkdir()
        for path in arrays.iterdir() if arrays else ():
            _link(path, entry / path.name)
        stamps = {path.name: _stamp(path) for path in sorted(entry.iterdir())}
        json_files.write_json(entry / RECORD, {"key": key, "arrays": stamps, "rows": rows})


def fetch(cache: Path, patient: str, key: str, *, arrays: Path) -> list[dict[str, Any]] | None:
    """Return the rows that were stored for a patient under this key; link its arrays.

    Args:
        arrays: folder to link the arrays into; it is replaced. Not created if there are none.

    Returns:
        None, with nothing linked, if there is no entry with this key, if the entry cannot be
        read, or if a stored array is missing or was changed.
    """
    entry = cache / patient
    try:
        record = json.loads((entry / RECORD).read_text(encoding="utf-8"))
        if record["key"] != key:
            return None
        stamps, rows = record["arrays"], record["rows"]
        if any(_stamp(entry / name) != stamp for name, stamp in stamps.items()):
            return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if stamps:
        with files.atomic_write(arrays) as folder:
            folder.mkdir()
            for name in stamps:
                _link(entry / name, folder / name)
    return list(rows)


def prune(cache: Path, *, keep: Collection[str]) -> None:
    """Remove the entries of all patients that are not in `keep`, and remains of killed runs."""
    for folder in cache.iterdir() if cache.is_dir() else ():
        if folder.name not in keep:
            shutil.rmtree(folder)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


def _stamp(path: Path) -> list[int]:
    """Return size in bytes and time of the last change in ns; a write in place changes them."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
