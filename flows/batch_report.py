"""What became of each batch: the inbox's own notes, and whom validation kept out of it."""

from typing import Any

from flows.watching import open_inbox
from pipeline.adapters import files
from pipeline.adapters.project import Project


def rows(own: Project) -> list[dict[str, Any]]:
    """A row for every batch that was seen: batch, state, when, note, and `kept_out`."""
    found = _kept_out(own)
    return [
        {
            "batch": entry.batch,
            "state": entry.state,
            "when": entry.when,
            "note": entry.note,
            "kept_out": "; ".join(found.get(entry.batch, [])),
        }
        for entry in open_inbox(own).entries()
    ]


def _kept_out(own: Project) -> dict[str, list[str]]:
    """For each batch `patient: rule` of what the last validation found in its files."""
    path = own.path("quarantine")
    if not path.exists():
        return {}
    found: dict[str, list[str]] = {}
    for row in files.read_table(path).itertuples():
        batch = str(row.file).partition("/")[0]
        found.setdefault(batch, []).append(f"{row.patient}: {row.rule}")
    return found
