"""Exports against Keras, with OpenVINO itself."""

import json

import keras
import numpy as np
import pytest

from pipeline.adapters import forms, openvino_graph
from pipeline.network import inference, resunet


def network(
    *, image_size: int, side: int, seed: int, networks: int = 1, finer: bool = False
) -> keras.Model:
    """The drawn network with weights and batch statistics as a training leaves them."""
    filters = (4, 8, 8, 16, 16)
    keras.utils.set_random_seed(seed)
    model = resunet.build(
        image_size=image_size, filters=filters, height=side, width=side, networks=networks,
        finer=finer,
    )  # fmt: skip
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if "kernel" not in variable.path:
            low = 0.5 if "variance" in variable.path or "gamma" in variable.path else -0.2
            variable.assign(generator.uniform(low, low + 0.5, variable.shape))
    return model


def slices(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image_size", "side", "finer"),
    [(32, 32, False), (16, 64, False), (16, 64, True), (32, 64, True)],
)
@pytest.mark.parametrize(("seed", "networks"), [(1, 1), (2, 1), (1, 3)])
def test_the_graph_gives_what_keras_gives(image_size, side, finer, seed, networks, tmp_path):
    import openvino as ov

    model = network(image_size=image_size, side=side, seed=seed, networks=networks, finer=finer)
    shown = slices(4, side)
    graph = openvino_graph.make(model, batch=4)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(graph, "CPU", options).create_infer_request()
    request.infer([shown])
    found = request.get_output_tensor().data[:, 0]
    expected = inference.probabilities(model, shown, batch=4)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5
    assert expected.std() > 0.01


def test_every_form_is_compared_and_the_fastest_that_passes_is_taken(tmp_path):
    model, sample = network(image_size=32, side=32, seed=1), slices(9, 32)
    found = forms.prove(tmp_path / "kept", model, sample, threshold=0.5, exact=False)
    note = json.loads((tmp_path / "kept/proof.json").read_text())
    assert {"Keras float32", "OpenVINO float32"} <= {one["form"] for one in note["proofs"]}
    passed = [one for one in note["proofs"] if one["different"] <= forms.MOST_DIFFERENT]
    best = max(passed, key=lambda one: one["slices_per_second"])
    assert found.proof.form == best["form"]
    expected = inference.probabilities(model, sample, batch=9) >= 0.5
    assert np.mean((found.predict(sample) >= 0.5) != expected) <= forms.MOST_DIFFERENT


def test_a_form_that_differs_is_not_taken_however_fast():
    proofs = [
        forms.Proof(forms.KERAS, 0.0, 1.0, 9),
        forms.Proof("OpenVINO float32", 1e-6, 5.0, 9),
        forms.Proof("OpenVINO bfloat16", 0.02, 99.0, 9),
    ]
    assert forms.best(proofs, exact=False).form == "OpenVINO float32"
    assert forms.best(proofs, exact=True).form == forms.KERAS


def test_what_was_proven_is_found_again_without_keras(tmp_path):
    model, sample = network(image_size=32, side=32, seed=1), slices(6, 32)
    forms.prove(tmp_path / "kept", model, sample, threshold=0.5, exact=False)
    note = json.loads((tmp_path / "kept/proof.json").read_text())
    for proof in note["proofs"]:
        proof["slices_per_second"] = 9.0 if proof["form"] == "OpenVINO float32" else 1.0
    (tmp_path / "kept/proof.json").write_text(json.dumps(note))

    def never() -> keras.Model:
        raise AssertionError("Keras was loaded")

    found = forms.stored(tmp_path / "kept", exact=False, load=never)
    assert found is not None
    assert (found.proof.form, found.model_name, found.shape) == (
        "OpenVINO float32", "resunet", (32, 32, 3),
    )  # fmt: skip
    expected = inference.probabilities(model, sample, batch=6)
    assert np.abs(found.predict(sample) - expected).max() < 1e-5


@pytest.mark.parametrize("broken", ["", "{}", '{"machine": "another"}'])
def test_what_was_proven_elsewhere_or_is_broken_counts_for_nothing(tmp_path, broken):
    (tmp_path / "proof.json").write_text(broken)
    assert forms.stored(tmp_path, exact=False, load=lambda: None) is None
    assert forms.stored(tmp_path / "nothing", exact=False, load=lambda: None) is None


def test_another_network_is_left_to_keras(tmp_path, capsys):
    shown = keras.Input((16, 16, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(shown)
    other = keras.Model(shown, keras.layers.Conv2D(1, 1, activation="sigmoid")(x))
    found = forms.prove(tmp_path / "kept", other, slices(3, 16), threshold=0.5, exact=False)
    assert found.proof.form == forms.KERAS
    assert "OpenVINO does not take this model" in capsys.readouterr().err


def test_a_sample_is_spread_over_all_scans():
    scans = [np.full((10, 2, 2, 3), number, np.uint8) for number in range(4)]
    found = forms.sample_of(scans, 8)
    assert len(found) == 8
    assert set(found[:, 0, 0, 0]) == {0, 1, 2, 3}


def test_scores_are_measured_in_float32_and_repeat_exactly():
    model = network(image_size=32, side=32, seed=1)
    images = slices(9, 32)
    predict = forms.steady(model)
    first = predict(images)
    assert np.abs(first - inference.probabilities(model, images, batch=16)).max() < 1e-5
    assert np.array_equal(forms.steady(model)(images), first)


def test_scores_of_another_network_are_measured_by_keras():
    shown = keras.Input((16, 16, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(shown)
    other = keras.Model(shown, keras.layers.Conv2D(1, 1, activation="sigmoid")(x))
    images = slices(3, 16)
    expected = inference.probabilities(other, images, batch=16)
    assert np.array_equal(forms.steady(other)(images), expected)
