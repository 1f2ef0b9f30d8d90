"""Files as bytes, tables and images; whole or not at all.

Does not know what a scan is: only how its files are read and written.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import GliaflowError


def sha256(path: Path) -> str:
    """SHA-256 of a file that a stage made, as hex.

    Raises:
        GliaflowError: it is not there.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise GliaflowError(f"{path} is not there; run `dvc repro` to build it") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` once all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    old = beside.with_name(f"{beside.name}.old")
    try:
        yield beside
        if path.is_dir():
            path.rename(old)
        beside.replace(path)
    finally:
        shutil.rmtree(old, ignore_errors=True)
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read what a stage wrote as JSON.

    Raises:
        GliaflowError: the file is not there or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GliaflowError(f"{path} is not there; run `dvc repro` to build it") from None
    except ValueError as error:
        raise GliaflowError(f"{path} is no JSON ({error}); delete it, run `dvc repro`") from error


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A csv with one line end on every system; floats as short as they read back the same."""
    with replacing(path) as beside:
        table.to_csv(beside, index=False, lineterminator="\n")


# Columns of the tables that hold text, also where all of it looks like numbers.
TEXT = (
    "patient", "site", "file", "mask_file", "sha256", "mask_sha256", "pixels", "dtype", "blank",
    "missing", "mask_dtype", "mask_values", "unreadable", "misnamed", "numbering",
    "same_image_as", "conflict", "split", "rule", "found", "expected", "size_group",
)  # fmt: skip


def read_table(path: Path) -> pd.DataFrame:
    """Read a csv that a stage wrote; empty cells are missing values.

    Raises:
        GliaflowError: the file is not there, or is no table.
    """
    try:
        return pd.read_csv(
            path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=[""]
        )
    except FileNotFoundError:
        raise GliaflowError(f"{path} is not there; run `dvc repro` to build it") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise GliaflowError(
            f"{path} is no table ({error}); delete it and run `dvc repro`"
        ) from error


def decode_image(content: bytes) -> np.ndarray:
    """Decode a tif (or another image) as it is: (H, W) or (H, W, C), its own type, RGB order.

    Raises:
        ValueError: what is wrong with it, in a few words.
    """
    import cv2

    if not content:
        raise ValueError("the file is empty")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:  # a header that claims an absurd size
        raise ValueError(f"it does not decode as an image ({error.err})") from error
    if image is None:
        raise ValueError("it does not decode as an image")
    # OpenCV gives blue first; a tif's first channel, the pre-contrast one, is its red.
    return (
        np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 and image.shape[2] == 3 else image
    )


def encode_tif(image: np.ndarray) -> bytes:
    """An uncompressed tif of (H, W) or (H, W, 3) uint8, RGB order, as the data set has them."""
    import cv2

    pixels = image[..., ::-1] if image.ndim == 3 else image
    done, buffer = cv2.imencode(".tif", pixels, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    assert done
    return buffer.tobytes()
