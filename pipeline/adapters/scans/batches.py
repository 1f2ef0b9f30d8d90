"""Batches: folders of scans that arrived together, each with a note of when.

A batch lies in `data/incoming/<batch>/` and, copied by `fetch`, in `data/raw/<batch>/`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.adapters.storage import json_files

NOTE = "batch.json"
SOURCE = "source"  # folder of the first scans, in place of a batch's name


@dataclass(frozen=True)
class BatchNote:
    """Record of an imported batch.

    arrived: time of the import, ISO 8601, UTC. digest: of its scans, whatever its name.
    """

    arrived: str
    digest: str


def write_note(batch: Path, note: BatchNote) -> None:
    """Write the note into the folder of a batch."""
    json_files.write_json(batch / NOTE, asdict(note))


def read_note(batch: Path) -> BatchNote | None:
    """Read the note of a batch; None if there is none, as for a folder put there by hand."""
    path = batch / NOTE
    try:
        if not path.is_file():  # a pipe would never end
            return None
        note = BatchNote(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return note if isinstance(note.arrived, str) and isinstance(note.digest, str) else None


def in_arrival_order(folder: Path) -> list[Path]:
    """Return the source, then the batches by time of arrival, then those without a note by name."""

    def sort_key(batch: Path) -> tuple[bool, str, str]:
        note = read_note(batch)
        return batch.name != SOURCE, note.arrived if note else "~", batch.name

    return sorted((path for path in folder.iterdir() if path.is_dir()), key=sort_key)
