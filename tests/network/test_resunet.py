import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.adapters import model_files
from pipeline.errors import GliaflowError
from pipeline.network import lean
from pipeline.network.resunet import build, prefixes, shrink_factor

TINY = (2, 2, 2, 2, 2)
PUBLISHED = (16, 32, 64, 128, 256)

# Runs without the project: no site-packages hooks, so that an editable install is not seen,
# and an import of it fails.
STRANGER = """
import sys
packages, model, slices, found = sys.argv[1:]
sys.path.append(packages)
sys.modules["pipeline"] = None
import keras
import numpy as np
network = keras.saving.load_model(model, compile=False, safe_mode=True)
np.save(found, network.predict_on_batch(np.load(slices)))
"""


def tiny(*, image_size: int = 16, side: int = 16, seed: int = 1) -> keras.Model:
    """A network whose every weight is drawn, batch statistics too."""
    model = build(image_size=image_size, filters=TINY, height=side, width=side)
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.1, 0.9, w.shape) - 0.3 for w in model.get_weights()])
    for variable in model.variables:
        if variable.name == "moving_variance":
            variable.assign(abs(variable) + 0.1)
    return model


def slices(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def probabilities(model: keras.Model, shown: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(shown, training=False))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[keras.Model, Path]:
    """A network that works at half the slices' size, and its file."""
    model, path = tiny(side=32), tmp_path_factory.mktemp("saved") / "resunet.keras"
    model_files.save(model, path)
    return model, path


@pytest.mark.parametrize("image_size", [256, 64])
def test_the_published_filters_make_1210513_parameters(image_size):
    model = build(image_size=image_size, filters=PUBLISHED, height=256, width=256)
    assert model.count_params() == 1_210_513


def test_other_filters_make_another_number_of_parameters():
    assert tiny().count_params() < 1000


@pytest.mark.parametrize(("image_size", "side"), [(16, 16), (16, 32), (16, 64), (32, 32)])
def test_raw_slices_go_in_and_probabilities_of_their_size_come_out(image_size, side):
    model = tiny(image_size=image_size, side=side)
    found = probabilities(model, slices(3, side))
    assert model.input.dtype == "uint8"
    assert found.shape == (3, side, side, 1)
    assert found.dtype == np.float32
    assert 0 <= found.min() < found.max() <= 1


@pytest.mark.parametrize("value", [0, 255])
def test_slices_at_either_end_of_the_range_give_probabilities(value):
    found = probabilities(tiny(side=32), np.full((1, 32, 32, 3), value, np.uint8))
    assert np.isfinite(found).all()
    assert found.min() >= 0 and found.max() <= 1


def test_probabilities_that_are_certain_stay_in_range_when_brought_back_to_size():
    model = tiny(side=64)
    for bias, expected in ((100, 1.0), (-1000, 0.0)):
        model.get_layer("probability").bias.assign([bias])
        assert (probabilities(model, slices(1, 64)) == expected).all()


def test_a_slice_does_not_depend_on_its_batch():
    model, shown = tiny(), slices(4, 16)
    together = probabilities(model, shown)
    alone = probabilities(model, np.stack([shown[2]] * 4))
    assert np.allclose(together[2], alone[0], atol=1e-6)


def test_weights_are_carried_between_sizes():
    small, large = tiny(image_size=16, side=16), tiny(image_size=16, side=32, seed=9)
    large.set_weights(small.get_weights())
    shown = slices(2, 16)
    doubled = shown.repeat(2, axis=1).repeat(2, axis=2)  # each pixel as 2x2: averages to itself
    found, expected = probabilities(large, doubled), probabilities(small, shown)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):  # where nothing is interpolated
        assert np.allclose(found[:, *corner], expected[:, *corner], atol=1e-5)
    halves = found.reshape(2, 16, 2, 16, 2).mean(axis=(2, 4))
    assert np.corrcoef(halves.ravel(), expected.ravel())[0, 1] > 0.9


def test_weights_fit_a_network_that_works_at_another_size():
    small, large = tiny(image_size=16, side=32), tiny(image_size=32, side=32, seed=9)
    large.set_weights(small.get_weights())
    assert probabilities(large, slices(1, 32)).shape == (1, 32, 32, 1)


@pytest.mark.parametrize(
    ("image_size", "height", "width"),
    [(48, 64, 64), (96, 256, 256), (128, 64, 64), (64, 256, 128), (64, 128, 256)],
    ids=["no divisor", "no divisor", "larger than the slices", "upright", "lying"],
)
def test_a_size_that_does_not_divide_is_refused_with_a_sentence(image_size, height, width):
    with pytest.raises(GliaflowError) as refused:
        build(image_size=image_size, filters=TINY, height=height, width=width)
    said = str(refused.value)
    assert f"{height}x{width} px" in said
    if height == width:
        assert f"train.image_size is {image_size}" in said
        assert "expected a size that divides theirs" in said
    else:
        assert "expected square ones" in said


def test_a_refusal_offers_sizes_that_fit():
    with pytest.raises(GliaflowError, match=r"set one of \[16, 32, 64, 128, 256\]"):
        shrink_factor(image_size=96, height=256, width=256)
    assert [shrink_factor(image_size=n, height=256, width=256) for n in (256, 128, 64, 32)] == [
        1, 2, 4, 8,
    ]  # fmt: skip


def test_a_saved_model_gives_the_same_probabilities_where_the_project_is_not(saved, tmp_path):
    model, path = saved
    shown = slices(3, 32)
    np.save(tmp_path / "slices.npy", shown)
    packages = sysconfig.get_path("purelib")
    files = [str(path), str(tmp_path / "slices.npy"), str(tmp_path / "found.npy")]
    command = [sys.executable, "-I", "-S", "-c", STRANGER, packages, *files]
    there = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert there.returncode == 0, there.stderr
    # Not to the last bit: TensorFlow's graph rewriter is on there and may be off here.
    assert np.abs(np.load(tmp_path / "found.npy") - model.predict_on_batch(shown)).max() < 1e-6


def test_a_saved_model_loads_back_with_equal_weights(saved):
    model, path = saved
    loaded = model_files.load(path)
    assert loaded.name == "resunet"
    for kept, read in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(kept, read)


def test_saving_twice_gives_identical_bytes(saved, tmp_path):
    model, path = saved
    model_files.save(model, tmp_path / "again.keras")
    assert (tmp_path / "again.keras").read_bytes() == path.read_bytes()


def test_a_network_built_anew_with_equal_weights_gives_identical_bytes(saved, tmp_path):
    _, path = saved
    model_files.save(tiny(side=32), tmp_path / "anew.keras")
    assert (tmp_path / "anew.keras").read_bytes() == path.read_bytes()


def test_other_weights_give_other_bytes(saved, tmp_path):
    _, path = saved
    model_files.save(tiny(side=32, seed=9), tmp_path / "other.keras")
    assert (tmp_path / "other.keras").read_bytes() != path.read_bytes()


def test_a_saved_model_holds_no_date(saved):
    with zipfile.ZipFile(saved[1]) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert "date_saved" not in json.loads(archive.read("metadata.json"))


def test_saving_leaves_one_file(saved):
    assert [path.name for path in saved[1].parent.iterdir()] == ["resunet.keras"]


def is_the_mean_of(model: keras.Model, own: list[str], alone: list[keras.Model]) -> bool:
    """Whether a model with the weights of others, under these prefixes, gives their mean."""
    weights = {
        prefix + name: values
        for prefix, one in zip(own, alone, strict=True)
        for name, values in lean.weights(one).items()
    }
    lean.assign(model, weights)
    shown = slices(4, model.inputs[0].shape[1])
    each = [one.predict_on_batch(shown) for one in alone]
    assert np.abs(each[0] - each[1]).max() > 0.01
    return np.allclose(model.predict_on_batch(shown), np.mean(each, axis=0), atol=1e-6)


@pytest.mark.parametrize(("image_size", "side"), [(16, 16), (16, 32)])
def test_a_model_of_several_networks_gives_their_mean(image_size, side):
    alone = [tiny(image_size=image_size, side=side, seed=seed) for seed in (1, 2, 3)]
    model = build(image_size=image_size, filters=TINY, height=side, width=side, networks=3)
    assert is_the_mean_of(model, prefixes(3), alone)


@pytest.mark.parametrize(("side", "networks"), [(32, 1), (64, 1), (64, 2)])
def test_a_finer_network_is_asked_at_twice_the_size(side, networks):
    own = prefixes(networks, finer=True)
    sizes = [32 if prefix.startswith("finer") else 16 for prefix in own]
    assert sizes == [16, 32] * networks
    alone = [tiny(image_size=size, side=side, seed=seed) for seed, size in enumerate(sizes)]
    model = build(
        image_size=16, filters=TINY, height=side, width=side, networks=networks, finer=True
    )
    assert is_the_mean_of(model, own, alone)


@pytest.mark.parametrize("factor", [1, 3])
def test_twice_a_size_that_does_not_divide_the_slices_is_refused(factor):
    with pytest.raises(GliaflowError, match=f"side is {factor} times"):
        build(image_size=16, filters=TINY, height=16 * factor, width=16 * factor, finer=True)


def test_a_network_alone_has_the_names_it_always_had():
    assert prefixes(1) == [""]
    assert {"open_1", "bottom_wide", "rise_0_short", "probability"} <= set(lean.weights(tiny()))
