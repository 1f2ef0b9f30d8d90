"""Status of every batch: the record of the inbox, and the patients in quarantine."""

from typing import Any

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.storage import csv_files
from pipeline.app.open_inbox import open_inbox


def batch_rows(project: Project) -> list[dict[str, Any]]:
    """Return one row per batch that was ever in the inbox.

    Returns:
        `batch`, `state`, `when` (ISO 8601, UTC), `note`, and `kept_out`: its patients in
        quarantine with the rule, empty if there are none.
    """
    quarantined = _quarantined(project)
    return [
        {
            "batch": entry.batch,
            "state": entry.state,
            "when": entry.when,
            "note": entry.note,
            "kept_out": "; ".join(quarantined.get(entry.batch, [])),
        }
        for entry in open_inbox(project).entries()
    ]


def _quarantined(project: Project) -> dict[str, list[str]]:
    """Map each batch to `patient: rule` of its files that failed the last validation."""
    path = project.path("quarantine")
    if not path.exists():
        return {}
    quarantined: dict[str, list[str]] = {}
    for row in csv_files.read_table(path).itertuples():
        batch = str(row.file).partition("/")[0]
        quarantined.setdefault(batch, []).append(f"{row.patient}: {row.rule}")
    return quarantined
