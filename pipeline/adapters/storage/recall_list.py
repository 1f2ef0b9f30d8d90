"""Read and extend data/recalled.csv, the list of patients who withdrew.

It is in git: every build reads it, and who withdrew whom, when and why stays on record.
"""

from pathlib import Path

import pandas as pd

from pipeline.adapters.storage import csv_files
from pipeline.domain.recall import COLUMNS
from pipeline.errors import GliaflowError


def read(path: Path) -> pd.DataFrame:
    """Return the list, a row per patient.

    Raises:
        GliaflowError: the file is missing, or has other columns.
    """
    table = csv_files.read_table(path)
    if list(table.columns[: len(COLUMNS)]) != COLUMNS:
        raise GliaflowError(
            f"{path} has the columns {', '.join(table.columns)}; expected {', '.join(COLUMNS)}: "
            "restore it from git"
        )
    return table.astype({"patient": str})


def add(path: Path, *, patient: str, when: str, who: str, why: str) -> None:
    """Add a patient; one who is on the list already stays as they are."""
    table = read(path)
    if patient not in set(table.patient):
        row = pd.DataFrame([[patient, when, who, why]], columns=COLUMNS)
        csv_files.write_table(path, pd.concat([table, row], ignore_index=True))
