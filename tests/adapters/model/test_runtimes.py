"""Exported models compared with Keras, run by OpenVINO itself."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipeline.adapters.model import openvino_graph, predictors, runtimes
from pipeline.network import inference, resunet


def network(
    *, image_size: int, side: int, seed: int, networks: int = 1, refined: bool = False
) -> keras.Model:
    """The plain network with random weights and batch statistics, as after a training."""
    filters = (4, 8, 8, 16, 16)
    keras.utils.set_random_seed(seed)
    model = resunet.build(
        image_size=image_size, filters=filters, height=side, width=side, networks=networks,
        refined=refined,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "kernel" not in variable.path:
            low = 0.5 if "variance" in variable.path or "gamma" in variable.path else -0.2
            variable.assign(rng.uniform(low, low + 0.5, variable.shape))
    return model


def foreign_network() -> keras.Model:
    """A network that this project did not build: one 1x1 convolution."""
    slices_in = keras.Input((16, 16, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(slices_in)
    return keras.Model(slices_in, keras.layers.Conv2D(1, 1, activation="sigmoid")(x))


def slices(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def read_cache(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "runtimes.json").read_text())


@pytest.mark.parametrize(
    ("image_size", "side", "refined"),
    [(32, 32, False), (16, 64, False), (16, 64, True), (32, 64, True)],
)
@pytest.mark.parametrize(("seed", "networks"), [(1, 1), (2, 1), (1, 3)])
def test_the_graph_gives_the_probabilities_of_keras(image_size, side, refined, seed, networks):
    import openvino as ov

    model = network(image_size=image_size, side=side, seed=seed, networks=networks, refined=refined)
    images = slices(4, side)
    graph = openvino_graph.build_graph(model, batch=4)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(graph, "CPU", options).create_infer_request()
    request.infer([images])
    probability = request.get_output_tensor().data[:, 0]
    expected = inference.probabilities(model, images, batch=4)
    assert probability.shape == expected.shape
    assert np.abs(probability - expected).max() < 1e-5
    assert expected.std() > 0.01


def test_every_runtime_is_compared_and_the_fastest_accurate_one_is_selected(tmp_path):
    model, sample = network(image_size=32, side=32, seed=1), slices(9, 32)
    selected = runtimes.select(tmp_path / "cache", model, sample, threshold=0.5, exact=False)
    rows = read_cache(tmp_path / "cache")["comparisons"]
    assert {"Keras float32", "OpenVINO float32"} <= {row["runtime"] for row in rows}
    accurate = [row for row in rows if row["differing_share"] <= runtimes.MAX_DIFFERING_SHARE]
    best = max(accurate, key=lambda row: row["slices_per_second"])
    assert selected.comparison.runtime == best["runtime"]
    assert selected.comparison.sample_slices == 9
    expected = inference.probabilities(model, sample, batch=9) >= 0.5
    differing = np.mean((selected.predict(sample) >= 0.5) != expected)
    assert differing <= runtimes.MAX_DIFFERING_SHARE


def test_a_runtime_with_other_masks_is_not_selected_however_fast():
    comparisons = [
        runtimes.Comparison("OpenVINO float32", 0.0, 5.0, 9),
        runtimes.Comparison("OpenVINO bfloat16", 0.02, 99.0, 9),
        runtimes.Comparison("Keras float32", 1e-6, 7.0, 9),
    ]
    assert runtimes.fastest(comparisons, exact=False).runtime == "Keras float32"
    assert runtimes.fastest(comparisons, exact=True).runtime == "OpenVINO float32"


def test_a_cached_runtime_is_loaded_without_keras(tmp_path):
    model, sample = network(image_size=32, side=32, seed=1), slices(6, 32)
    runtimes.select(tmp_path / "cache", model, sample, threshold=0.5, exact=False)
    cache = read_cache(tmp_path / "cache")
    for row in cache["comparisons"]:
        row["slices_per_second"] = 9.0 if row["runtime"] == "OpenVINO float32" else 1.0
    (tmp_path / "cache/runtimes.json").write_text(json.dumps(cache))

    def refuse_to_load() -> keras.Model:
        raise AssertionError("Keras was loaded")

    loaded = runtimes.load_cached(tmp_path / "cache", exact=False, load=refuse_to_load)
    assert loaded is not None
    assert loaded.comparison.runtime == "OpenVINO float32"
    assert (loaded.model_name, loaded.shape) == ("resunet", (32, 32, 3))
    expected = inference.probabilities(model, sample, batch=6)
    assert np.abs(loaded.predict(sample) - expected).max() < 1e-5


def test_an_export_that_was_changed_is_not_used(tmp_path):
    model, sample = network(image_size=32, side=32, seed=1), slices(6, 32)
    runtimes.select(tmp_path / "cache", model, sample, threshold=0.5, exact=False)
    assert runtimes.load_cached(tmp_path / "cache", exact=False, load=lambda: model) is not None
    weights = tmp_path / "cache/model.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert runtimes.load_cached(tmp_path / "cache", exact=False, load=lambda: model) is None


@pytest.mark.parametrize("content", ["", "{}", '{"machine": "another"}'])
def test_a_cache_of_another_machine_or_a_damaged_one_is_ignored(tmp_path, content):
    (tmp_path / "runtimes.json").write_text(content)
    assert runtimes.load_cached(tmp_path, exact=False, load=lambda: None) is None
    assert runtimes.load_cached(tmp_path / "missing", exact=False, load=lambda: None) is None


def test_keras_predicts_for_a_network_that_openvino_does_not_take(tmp_path, capsys):
    model = foreign_network()
    selected = runtimes.select(tmp_path / "cache", model, slices(3, 16), threshold=0.5, exact=False)
    assert selected.comparison.runtime == "Keras float32"
    assert "OpenVINO does not take this model" in capsys.readouterr().err


def test_a_sample_covers_all_scans():
    scans = [np.full((10, 2, 2, 3), number, np.uint8) for number in range(4)]
    sample = runtimes.sample_slices(scans, 8)
    assert len(sample) == 8
    assert set(sample[:, 0, 0, 0]) == {0, 1, 2, 3}


def test_a_sample_of_few_slices_holds_each_once():
    scans = [np.full((2, 2, 2, 3), number, np.uint8) for number in range(2)]
    assert runtimes.sample_slices(scans, 32)[:, 0, 0, 0].tolist() == [0, 0, 1, 1]


def test_the_reference_predictor_agrees_with_keras_and_repeats_exactly():
    model = network(image_size=32, side=32, seed=1)
    images = slices(9, 32)
    first = predictors.reference_predictor(model)(images)
    assert first.dtype == np.float32
    assert np.abs(first - inference.probabilities(model, images, batch=16)).max() < 1e-5
    assert np.array_equal(predictors.reference_predictor(model)(images), first)


def test_the_reference_predictor_of_a_foreign_network_is_keras():
    model, images = foreign_network(), slices(3, 16)
    expected = inference.probabilities(model, images, batch=16)
    assert np.array_equal(predictors.reference_predictor(model)(images), expected)
