"""A damaged .keras file is loaded, or refused in one line that names it."""

import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from pipeline.adapters.model import model_files
from pipeline.errors import GliaflowError
from properties import kept, mutations
from properties.search import search

LARGEST = 2000  # a layer of billions of filters would fill the memory, as its config says


def small_model() -> bytes:
    """Return a .keras file with a convolution of one filter."""
    import keras

    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Conv2D(1, 1, activation="sigmoid")(inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model_files.save_model(keras.Model(inputs, outputs), path)
        return path.read_bytes()


GOOD = small_model()


def entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def as_zip(parts: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, body in parts.items():
            archive.writestr(name, body)
    return stream.getvalue()


@st.composite
def damaged_models(draw: st.DrawFn) -> bytes:
    """Damage the file, or an entry of it whose checksum then fits, or a value of its config."""
    parts = entries(GOOD)
    match draw(st.sampled_from(["file", "entry", "entry missing", "config", "config"])):
        case "file":
            return draw(mutations.mutated(GOOD, range(0, 80, 2)))
        case "entry":
            name = draw(st.sampled_from(sorted(parts)))
            return as_zip(parts | {name: draw(mutations.mutated(parts[name], range(0, 200, 4)))})
        case "entry missing":
            name = draw(st.sampled_from(sorted(parts)))
            return as_zip({key: body for key, body in parts.items() if key != name})
        case _:
            name = draw(st.sampled_from(["config.json", "metadata.json"]))
            changed = _small(draw(mutations.mutated_value(json.loads(parts[name]))))
            return as_zip(parts | {name: json.dumps(changed).encode()})


def _small(value: Any) -> Any:
    """Replace numbers that a layer of that size would fill the memory with."""
    if isinstance(value, dict):
        return {key: _small(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_small(item) for item in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return LARGEST if is_number and value > LARGEST else value


def check_is_loaded_or_refused(content: bytes, folder: Path) -> None:
    """Check that a file loads as a Keras model, or is refused in one line with its name."""
    import keras

    path = folder / "model.keras"
    path.write_bytes(content)
    try:
        model = model_files.load_model(path)
    except GliaflowError as error:
        message = str(error)
    else:
        assert isinstance(model, keras.Model)
        return
    assert str(path) in message and message.isprintable() and len(message) < 1000, message


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@search("models", damaged_models())
def test_a_damaged_model_is_loaded_or_refused(content, folder):
    with kept.failing("models", content):
        check_is_loaded_or_refused(content, folder)


@kept.replay("models")
def test_kept_models(content, folder):
    check_is_loaded_or_refused(content, folder)


def test_the_undamaged_model_is_loaded(folder):
    (folder / "good.keras").write_bytes(GOOD)
    assert model_files.load_model(folder / "good.keras").count_params() == 4
