"""Read and write JSON files. NaN and infinity are rejected: they are not valid JSON."""

import json
from pathlib import Path
from typing import Any

from pipeline.adapters.storage import files
from pipeline.errors import GliaflowError


def as_json(value: Any) -> str:
    """Return a value as one line of JSON.

    Raises:
        ValueError: it contains NaN or infinity.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically.

    Raises:
        ValueError: it contains NaN or infinity; the file stays as it was.
    """
    files.write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote.

    Raises:
        GliaflowError: the file does not exist or is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GliaflowError(f"{path} does not exist; run `dvc repro` to build it") from None
    except ValueError as error:
        raise GliaflowError(
            f"{path} is not valid JSON ({error}); delete it and run `dvc repro`"
        ) from error
