"""Batches of scans: folders that arrived together, with a note of when.

A batch lies in `data/incoming/<batch>/` and, copied by `fetch`, in `data/raw/<batch>/`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.adapters import files

NOTE = "batch.json"
SOURCE = "source"


@dataclass(frozen=True)
class Note:
    """arrived: when it was taken in, ISO 8601, UTC. digest: of its scans, whatever it is called."""

    arrived: str
    digest: str


def write_note(batch: Path, note: Note) -> None:
    files.write_json(batch / NOTE, asdict(note))


def read_note(batch: Path) -> Note | None:
    """The note of a batch; None for one that was put there by hand."""
    try:
        return Note(**json.loads((batch / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def in_order(folder: Path) -> list[Path]:
    """The source first, then batches as they arrived; those without a note come last, by name."""

    def place(batch: Path) -> tuple[bool, str, str]:
        note = read_note(batch)
        return batch.name != SOURCE, note.arrived if note else "~", batch.name

    return sorted((path for path in folder.iterdir() if path.is_dir()), key=place)
