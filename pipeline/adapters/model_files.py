"""The model file: written bit-identical for equal weights, read without running hidden code.

Keras puts dates and memory addresses into its files; both are taken out.
"""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.adapters import files
from pipeline.errors import GliaflowError

if TYPE_CHECKING:
    import keras

FIXED_DATE = (1980, 1, 1, 0, 0, 0)


def save(model: "keras.Model", path: Path) -> None:
    """Write a `.keras` file that is the same bytes for the same model."""
    with files.replacing(path) as beside:
        dated = beside.with_name(f"{beside.name}.keras")
        try:
            model.save(dated)
            _make_plain(dated, beside)
        finally:
            dated.unlink(missing_ok=True)


def load(path: Path) -> "keras.Model":
    """Read a model; `.h5` is refused, since Keras runs code found in it even in safe mode.

    Raises:
        GliaflowError: the file is missing, broken or of another kind.
    """
    import keras

    if path.suffix != ".keras":
        raise GliaflowError(f"{path} is no .keras file; other formats can carry code: not loaded")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise GliaflowError(
            f"{path} does not load as a model ({' '.join(str(error).split())[:200]}); "
            "run `dvc repro train`"
        ) from error


def _make_plain(dated: Path, plain: Path) -> None:
    with zipfile.ZipFile(dated) as source, zipfile.ZipFile(plain, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                kept = {k: v for k, v in json.loads(content).items() if k != "date_saved"}
                content = json.dumps(kept, sort_keys=True).encode()
            if name == "config.json":
                content = json.dumps(_numbered(json.loads(content), {})).encode()
            target.writestr(zipfile.ZipInfo(name, FIXED_DATE), content)


def _numbered(value: Any, known: dict[int, int]) -> Any:
    """The configuration with objects numbered as they appear, not by their addresses."""
    if isinstance(value, list):
        return [_numbered(one, known) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: known.setdefault(one, len(known) + 1)
        if key == "shared_object_id"
        else _numbered(one, known)
        for key, one in value.items()
    }
