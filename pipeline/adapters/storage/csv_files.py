"""Read and write CSV tables."""

from pathlib import Path

import pandas as pd

from pipeline.adapters.storage import files
from pipeline.errors import GliaflowError

# Columns that hold text, even where every value looks like a number.
TEXT_COLUMNS = (
    "patient", "site", "file", "mask_file", "sha256", "mask_sha256", "pixels", "dtype", "blank",
    "missing", "mask_dtype", "mask_values", "unreadable", "misnamed", "numbering",
    "same_image_as", "conflict", "split", "rule", "found", "expected", "size_group",
)  # fmt: skip


def write_table(path: Path, table: pd.DataFrame) -> None:
    r"""Write a table as CSV, atomically, with `\n` as line ending on every system.

    Floats get as few digits as read back to the same value. Missing values are empty cells.
    """
    with files.atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV table that a stage wrote; empty cells are missing values.

    Raises:
        GliaflowError: the file does not exist or is not a valid CSV table.
    """
    try:
        return pd.read_csv(
            path, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False, na_values=[""]
        )
    except FileNotFoundError:
        raise GliaflowError(f"{path} does not exist; run `dvc repro` to build it") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise GliaflowError(
            f"{path} is not a valid CSV table ({error}); delete it and run `dvc repro`"
        ) from error
