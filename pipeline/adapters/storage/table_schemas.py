"""What the tables that stages hand on must hold: columns, types and ranges.

A table that was cut off, edited or written by another version is refused, with the file, the row
and the column. Rows count from 1, without the header.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from pipeline.adapters.storage import csv_files
from pipeline.domain import scans
from pipeline.domain.splits import SPLITS as SPLIT_NAMES
from pipeline.errors import GliaflowError

LARGEST = 2**53  # whole numbers up to here stay exact in a column with empty cells
MAX_SLICE = 99_999  # the number of a slice has at most five digits
SHOWN_CHARACTERS = 50  # of a cell


@dataclass(frozen=True)
class Column:
    """What the cells of a column hold.

    kind: `patient` is a text that can be the name of a folder. lowest, highest: of numbers,
    inclusive. choices: of texts; empty: any.
    """

    kind: Literal["patient", "text", "whole", "number"]
    lowest: float = 0
    highest: float = LARGEST
    choices: tuple[str, ...] = ()
    may_be_empty: bool = False
    is_optional: bool = False

    @property
    def expected(self) -> str:
        """What a cell must be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind == "patient":
            return "the name of a patient's folder"
        if self.kind == "text":
            return "a text"
        number = "a whole number" if self.kind == "whole" else "a number"
        if self.highest == LARGEST:
            return f"{number} of at least {self.lowest:g}"
        return f"{number} between {self.lowest:g} and {self.highest:g}"


@dataclass(frozen=True)
class Schema:
    """The columns of a table by name; others may be there too.

    stage: writes the table. has_rows: a table without rows is refused.
    """

    stage: str
    columns: Mapping[str, Column]
    has_rows: bool = False


PATIENT = Column("patient")
TEXT = Column("text")
ANY_TEXT = Column("text", may_be_empty=True, is_optional=True)
COUNT = Column("whole")
SHARE = Column("number", highest=1)
FACT = Column("whole", may_be_empty=True, is_optional=True)  # of a file that may be unreadable
MEAN = Column("number", highest=255, may_be_empty=True, is_optional=True)
LOSS = Column("number", may_be_empty=True, is_optional=True)

MANIFEST = Schema(
    "ingest",
    {
        "patient": PATIENT,
        "slice": Column("whole", highest=MAX_SLICE, may_be_empty=True),
        "tumour_pixels": Column("whole", may_be_empty=True),
        "conflict": Column("text", may_be_empty=True),
        **dict.fromkeys(("site", "file", "mask_file", "missing", "same_image_as"), ANY_TEXT),
        **dict.fromkeys(("height", "width", "channels"), FACT),
        **dict.fromkeys(("mask_height", "mask_width", "mask_channels"), FACT),
        **dict.fromkeys(("pre_mean", "flair_mean", "post_mean"), MEAN),
    },
    has_rows=True,
)
QUARANTINE = Schema("validate", {"patient": PATIENT, "rule": TEXT})
SPLITS = Schema(
    "split",
    {
        "patient": PATIENT,
        "slice": Column("whole", highest=MAX_SLICE, is_optional=True),
        "split": TEXT,
    },
)
HISTORY = Schema(
    "train",
    {
        **dict.fromkeys(("network", "epoch"), Column("whole", lowest=1)),
        **dict.fromkeys(("loss", "val_loss", "learning_rate"), LOSS),
        "val_tversky": Column("number", highest=1, may_be_empty=True),
    },
)
PATIENTS = Schema(
    "evaluate",
    {
        "patient": PATIENT,
        "split": Column("text", choices=SPLIT_NAMES),
        "site": TEXT,
        **dict.fromkeys(("tversky", "dice", "sensitivity", "precision"), SHARE),
        "slices": Column("whole", lowest=1),
        **dict.fromkeys(("tumour_slices", "false_alarm_slices"), COUNT),
        **dict.fromkeys(("tumour_pixels", "predicted_pixels"), COUNT),
        "missing": TEXT,
        "size_group": TEXT,
    },
    has_rows=True,
)


def read(path: Path, schema: Schema) -> pd.DataFrame:
    """Read a table and check it.

    Returns:
        The table; columns of whole numbers are int64, or float64 if cells are empty.

    Raises:
        GliaflowError: it is missing or no valid CSV, lacks a column or all rows, or holds a
            value that is not possible there.
    """
    table = csv_files.read_table(path)
    _check_columns(table, path, schema)
    for name, column in schema.columns.items():
        if name in table.columns:
            table = table.assign(**{name: _checked(table[name], column, path, schema.stage)})
    return table


def refuse(path: Path, stage: str, fault: str, *, expected: str) -> GliaflowError:
    """Return the error of a table with a fault."""
    return GliaflowError(
        f"{path}: {fault}; expected {expected}: delete the file and run `dvc repro {stage}`"
    )


def check_cells(
    cells: pd.Series, is_bad: pd.Series, path: Path, stage: str, *, expected: str
) -> None:
    """Refuse a table because of the first bad cell of a column, if there is one.

    Args:
        cells: some cells of the column, with the index of their rows in the file.
        is_bad: of each cell.
    """
    if not is_bad.any():
        return
    position = int(is_bad.to_numpy().argmax())
    row, value = cells.index[position] + 1, cells.iloc[position]
    shown = "empty" if pd.isna(value) else _shown(value)
    raise refuse(path, stage, f"{cells.name} in row {row} is {shown}", expected=expected)


def _check_columns(table: pd.DataFrame, path: Path, schema: Schema) -> None:
    needed = [name for name, column in schema.columns.items() if not column.is_optional]
    for name in needed:
        if name not in table.columns:
            raise refuse(
                path, schema.stage, f"there is no column {name}", expected=", ".join(needed)
            )
    if schema.has_rows and table.empty:
        raise refuse(path, schema.stage, "it has no rows", expected="at least one")


def _checked(cells: pd.Series, column: Column, path: Path, stage: str) -> pd.Series:
    """Return a column with its type.

    Raises:
        GliaflowError: a cell does not hold what it must.
    """
    is_number = column.kind in ("whole", "number")
    values = _numbers(cells) if is_number else cells
    is_bad = ~_in_range(values, column) if is_number else ~_is_text(values, column)
    is_bad &= cells.notna() | (not column.may_be_empty)
    check_cells(cells, is_bad, path, stage, expected=column.expected)
    return values.astype("int64") if column.kind == "whole" and values.notna().all() else values


def _numbers(cells: pd.Series) -> pd.Series:
    """Return the cells as numbers; NaN where one is empty or something else."""
    if cells.dtype == bool:
        return pd.Series(float("nan"), index=cells.index)
    return pd.to_numeric(cells, errors="coerce")


def _in_range(values: pd.Series, column: Column) -> pd.Series:
    is_allowed = values.between(column.lowest, column.highest)
    return is_allowed & (values % 1 == 0) if column.kind == "whole" else is_allowed


def _is_text(cells: pd.Series, column: Column) -> pd.Series:
    if column.choices:
        return cells.isin(column.choices)
    if column.kind == "patient":
        return cells.isin([name for name in cells.unique() if _is_patient(name)])
    return cells.notna()


def _is_patient(name: object) -> bool:
    """Whether a cell can be the name of a folder: it leads to no other folder, for one."""
    if not isinstance(name, str) or name in ("", ".", ".."):
        return False
    return "/" not in name and not scans.name_fault(name)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.15g}"
    shown = ascii(value) if isinstance(value, str) else str(value)
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."
