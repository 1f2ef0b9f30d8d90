"""The model file: written bit-identical for equal weights, read without running hidden code."""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.adapters import files
from pipeline.errors import GliaflowError

if TYPE_CHECKING:
    import keras

FIXED_DATE = (1980, 1, 1, 0, 0, 0)


def save(model: "keras.Model", path: Path) -> None:
    """Write a `.keras` file without the dates that Keras puts in."""
    with files.replacing(path) as beside:
        dated = beside.with_name(f"{beside.name}.keras")
        try:
            model.save(dated)
            _without_dates(dated, beside)
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


def _without_dates(dated: Path, plain: Path) -> None:
    with zipfile.ZipFile(dated) as source, zipfile.ZipFile(plain, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                kept = {k: v for k, v in json.loads(content).items() if k != "date_saved"}
                content = json.dumps(kept, sort_keys=True).encode()
            target.writestr(zipfile.ZipInfo(name, FIXED_DATE), content)
