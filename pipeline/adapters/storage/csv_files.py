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

    What it holds is not checked: see `table_schemas`.

    Raises:
        GliaflowError: the file does not exist, cannot be read or is not a valid CSV table.
    """
    try:
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXT_COLUMNS, str),
            keep_default_na=False,
            na_values=[""],
            low_memory=False,  # else long columns of several types cause a warning
        )
    except FileNotFoundError:
        raise GliaflowError(f"{path} does not exist; run `dvc repro` to build it") from None
    except OSError as error:
        raise GliaflowError(
            f"{path} cannot be read ({error.strerror}); expected a CSV table: delete it and run "
            "`dvc repro`"
        ) from error
    except ValueError as error:  # of the parser, or text that is not UTF-8
        raise _invalid(path, " ".join(str(error).split())) from error
    if not isinstance(table.index, pd.RangeIndex):
        raise _invalid(path, "its rows have more cells than its header")
    return table


def _invalid(path: Path, fault: str) -> GliaflowError:
    return GliaflowError(
        f"{path} is not a valid CSV table ({fault}); delete it and run `dvc repro`"
    )
