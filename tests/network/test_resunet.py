import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.adapters.model import model_files
from pipeline.errors import GliaflowError
from pipeline.network import fused
from pipeline.network.architecture import network_prefixes
from pipeline.network.resunet import build

TINY = (2, 2, 2, 2, 2)
PUBLISHED = (16, 32, 64, 128, 256)

# Runs without the project: no site-packages hooks, so that an editable install is not seen,
# and importing it fails.
WITHOUT_THE_PROJECT = """
import sys
packages, model, slices, output = sys.argv[1:]
sys.path.append(packages)
sys.modules["pipeline"] = None
import keras
import numpy as np
network = keras.saving.load_model(model, compile=False, safe_mode=True)
np.save(output, network.predict_on_batch(np.load(slices)))
"""


def tiny(*, image_size: int = 16, side: int = 16, seed: int = 1) -> keras.Model:
    """Build a network with random weights and batch statistics."""
    model = build(image_size=image_size, filters=TINY, height=side, width=side)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.1, 0.9, w.shape) - 0.3 for w in model.get_weights()])
    for variable in model.variables:
        if variable.name == "moving_variance":
            variable.assign(abs(variable) + 0.1)
    return model


def slices(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def probabilities(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(images, training=False))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[keras.Model, Path]:
    """A network that works at half the size of the slices, and its file."""
    model, path = tiny(side=32), tmp_path_factory.mktemp("saved") / "resunet.keras"
    model_files.save_model(model, path)
    return model, path


@pytest.mark.parametrize("image_size", [256, 64])
def test_the_published_filters_give_1210513_parameters(image_size):
    model = build(image_size=image_size, filters=PUBLISHED, height=256, width=256)
    assert model.count_params() == 1_210_513


def test_other_filters_give_another_number_of_parameters():
    assert tiny().count_params() < 1000


@pytest.mark.parametrize(("image_size", "side"), [(16, 16), (16, 32), (16, 64), (32, 32)])
def test_raw_slices_are_mapped_to_probabilities_of_the_same_size(image_size, side):
    model = tiny(image_size=image_size, side=side)
    predicted = probabilities(model, slices(3, side))
    assert model.input.dtype == "uint8"
    assert predicted.shape == (3, side, side, 1)
    assert predicted.dtype == np.float32
    assert 0 <= predicted.min() < predicted.max() <= 1


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_slices_give_probabilities(value):
    predicted = probabilities(tiny(side=32), np.full((1, 32, 32, 3), value, np.uint8))
    assert np.isfinite(predicted).all()
    assert predicted.min() >= 0 and predicted.max() <= 1


def test_probabilities_of_0_and_1_are_exact_after_enlarging():
    model = tiny(side=64)
    for bias, expected in ((100, 1.0), (-1000, 0.0)):
        model.get_layer("probability").bias.assign([bias])
        assert (probabilities(model, slices(1, 64)) == expected).all()


def test_a_slice_does_not_depend_on_its_batch():
    model, images = tiny(), slices(4, 16)
    together = probabilities(model, images)
    alone = probabilities(model, np.stack([images[2]] * 4))
    assert np.allclose(together[2], alone[0], atol=1e-6)


def test_weights_fit_a_network_for_larger_slices():
    small, large = tiny(image_size=16, side=16), tiny(image_size=16, side=32, seed=9)
    large.set_weights(small.get_weights())
    images = slices(2, 16)
    doubled = images.repeat(2, axis=1).repeat(2, axis=2)  # 2x2 equal pixels: the mean is the same
    predicted, expected = probabilities(large, doubled), probabilities(small, images)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):  # where nothing is interpolated
        assert np.allclose(predicted[:, *corner], expected[:, *corner], atol=1e-5)
    halved = predicted.reshape(2, 16, 2, 16, 2).mean(axis=(2, 4))
    assert np.corrcoef(halved.ravel(), expected.ravel())[0, 1] > 0.9


def test_weights_fit_a_network_of_another_image_size():
    small, large = tiny(image_size=16, side=32), tiny(image_size=32, side=32, seed=9)
    large.set_weights(small.get_weights())
    assert probabilities(large, slices(1, 32)).shape == (1, 32, 32, 1)


@pytest.mark.parametrize(
    ("image_size", "height", "width"),
    [(48, 64, 64), (96, 256, 256), (128, 64, 64), (64, 256, 128), (64, 128, 256)],
    ids=["no divisor", "no divisor", "larger than the slices", "portrait", "landscape"],
)
def test_an_image_size_that_does_not_divide_the_slices_is_refused(image_size, height, width):
    with pytest.raises(GliaflowError) as refused:
        build(image_size=image_size, filters=TINY, height=height, width=width)
    message = str(refused.value)
    assert f"{height}x{width} px" in message
    if height == width:
        assert f"train.image_size is {image_size}" in message
        assert "expected a size that divides theirs" in message
    else:
        assert "expected square ones" in message


def test_a_saved_model_gives_the_same_probabilities_without_this_project(saved, tmp_path):
    model, path = saved
    images = slices(3, 32)
    np.save(tmp_path / "slices.npy", images)
    packages = sysconfig.get_path("purelib")
    files = [str(path), str(tmp_path / "slices.npy"), str(tmp_path / "predicted.npy")]
    command = [sys.executable, "-I", "-S", "-c", WITHOUT_THE_PROJECT, packages, *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    predicted = np.load(tmp_path / "predicted.npy")
    # Not to the last bit: TensorFlow's graph optimizer is on there and may be off here.
    assert np.abs(predicted - model.predict_on_batch(images)).max() < 1e-6


def test_a_saved_model_loads_back_with_equal_weights(saved):
    model, path = saved
    loaded = model_files.load_model(path)
    assert loaded.name == "resunet"
    for saved_weight, weight in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(saved_weight, weight)


def test_saving_again_gives_identical_bytes(saved, tmp_path):
    model, path = saved
    model_files.save_model(model, tmp_path / "again.keras")
    assert (tmp_path / "again.keras").read_bytes() == path.read_bytes()


def test_another_network_with_equal_weights_gives_identical_bytes(saved, tmp_path):
    _, path = saved
    model_files.save_model(tiny(side=32), tmp_path / "equal.keras")
    assert (tmp_path / "equal.keras").read_bytes() == path.read_bytes()


def test_other_weights_give_other_bytes(saved, tmp_path):
    _, path = saved
    model_files.save_model(tiny(side=32, seed=9), tmp_path / "other.keras")
    assert (tmp_path / "other.keras").read_bytes() != path.read_bytes()


def test_a_saved_model_contains_no_date(saved):
    with zipfile.ZipFile(saved[1]) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert "date_saved" not in json.loads(archive.read("metadata.json"))


def test_saving_writes_a_single_file(saved):
    assert [path.name for path in saved[1].parent.iterdir()] == ["resunet.keras"]


def is_the_mean_of(model: keras.Model, prefixes: list[str], networks: list[keras.Model]) -> bool:
    """Return whether a model predicts the mean of networks, given their weights.

    Args:
        prefixes: of the networks' layers in the model.
    """
    weights = {
        prefix + name: values
        for prefix, network in zip(prefixes, networks, strict=True)
        for name, values in fused.layer_weights(network).items()
    }
    fused.set_layer_weights(model, weights)
    images = slices(4, model.inputs[0].shape[1])
    predicted = [network.predict_on_batch(images) for network in networks]
    assert np.abs(predicted[0] - predicted[1]).max() > 0.01
    return np.allclose(model.predict_on_batch(images), np.mean(predicted, axis=0), atol=1e-6)


@pytest.mark.parametrize(("image_size", "side"), [(16, 16), (16, 32)])
def test_an_ensemble_predicts_the_mean_of_its_networks(image_size, side):
    networks = [tiny(image_size=image_size, side=side, seed=seed) for seed in (1, 2, 3)]
    model = build(image_size=image_size, filters=TINY, height=side, width=side, networks=3)
    assert is_the_mean_of(model, network_prefixes(3), networks)


@pytest.mark.parametrize(("side", "networks"), [(32, 1), (64, 1), (64, 2)])
def test_a_refined_model_is_the_mean_of_networks_and_their_refinements(side, networks):
    prefixes = network_prefixes(networks, refined=True)
    sizes = [32 if prefix.startswith("finer") else 16 for prefix in prefixes]
    assert sizes == [16, 32] * networks
    parts = [tiny(image_size=size, side=side, seed=seed) for seed, size in enumerate(sizes)]
    model = build(
        image_size=16, filters=TINY, height=side, width=side, networks=networks, refined=True
    )
    assert is_the_mean_of(model, prefixes, parts)


@pytest.mark.parametrize("factor", [1, 3])
def test_a_refinement_whose_image_size_does_not_divide_the_slices_is_refused(factor):
    with pytest.raises(GliaflowError, match=f"side is {factor} times"):
        build(image_size=16, filters=TINY, height=16 * factor, width=16 * factor, refined=True)


def test_the_layer_names_of_a_single_network_have_no_prefix():
    assert {"open_1", "bottom_wide", "rise_0_short", "probability"} <= set(
        fused.layer_weights(tiny())
    )
