"""Model files: identical bytes for equal models, loaded without running code they contain.

Keras writes dates and memory addresses into its files; both are removed.
"""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.adapters.storage import files
from pipeline.errors import GliaflowError

if TYPE_CHECKING:
    import keras

FIXED_DATE = (1980, 1, 1, 0, 0, 0)


def save_model(model: "keras.Model", path: Path) -> None:
    """Write a `.keras` file; equal models give equal bytes."""
    with files.atomic_write(path) as beside:
        dated = beside.with_name(f"{beside.name}.keras")
        try:
            model.save(dated)
            _make_reproducible(dated, beside)
        finally:
            dated.unlink(missing_ok=True)


def load_model(path: Path) -> "keras.Model":
    """Load a model from a `.keras` file.

    `.h5` is refused: Keras runs code that such a file contains even in safe mode.

    Raises:
        GliaflowError: the file is missing, damaged or of another format.
    """
    import keras

    if path.suffix != ".keras":
        raise GliaflowError(f"{path} is no .keras file; other formats can carry code: not loaded")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras builds layers from the file's values: any may not fit
        raise GliaflowError(
            f"{path} does not load as a model ({_one_line(error)}); run `dvc repro train`"
        ) from error


def _one_line(error: Exception) -> str:
    """Return an error's text as it can be printed: it may quote the file's control characters."""
    text = " ".join(str(error).split())[:200]
    return text if text.isprintable() else ascii(text)


def _make_reproducible(dated: Path, target: Path) -> None:
    """Copy a `.keras` file without its dates and memory addresses, entries in order of name."""
    with zipfile.ZipFile(dated) as source, zipfile.ZipFile(target, "w") as archive:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                metadata = {k: v for k, v in json.loads(content).items() if k != "date_saved"}
                content = json.dumps(metadata, sort_keys=True).encode()
            if name == "config.json":
                content = json.dumps(_renumbered(json.loads(content), {})).encode()
            archive.writestr(zipfile.ZipInfo(name, FIXED_DATE), content)


def _renumbered(value: Any, numbers: dict[int, int]) -> Any:
    """Number shared objects by order of appearance instead of by memory address.

    Args:
        value: configuration of a model, or a part of it.
        numbers: address to number so far; extended.
    """
    if isinstance(value, list):
        return [_renumbered(item, numbers) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: numbers.setdefault(item, len(numbers) + 1)
        if key == "shared_object_id"
        else _renumbered(item, numbers)
        for key, item in value.items()
    }
