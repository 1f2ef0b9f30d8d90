"""The fused network is the plain one: same parameters, outputs and gradients.

Some of these run under `KERAS_BACKEND=jax` too (see test_steps.py), where normalisation and
pooling are implemented differently.
"""

import keras
import numpy as np
import pytest

from pipeline.network import fused, resunet
from pipeline.network.losses import focal_tversky

FILTERS = (4, 6, 8, 10, 12)
SIDE = 32
PUBLISHED = (16, 32, 64, 128, 256)


def random_plain(seed: int) -> keras.Model:
    """Build a plain network with random weights and batch statistics."""
    model = resunet.build(image_size=SIDE, filters=FILTERS, height=SIDE, width=SIDE)
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.name in ("moving_variance", "gamma"):
            low, high = 0.5, 1.5
        else:
            high = 2.4 / np.sqrt(np.prod(variable.shape[:-1])) if len(variable.shape) == 4 else 0.5
            low = -high
        variable.assign(rng.uniform(low, high, variable.shape))
    return model


def random_pair(seed: int) -> tuple[keras.Model, keras.Model]:
    """Build a plain network with random weights, and the fused one with the same weights."""
    plain = random_plain(seed)
    fused_network = fused.build(image_size=SIDE, filters=FILTERS)
    fused.set_layer_weights(fused_network, fused.fuse(fused.layer_weights(plain)))
    return plain, fused_network


def batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)
    return images, (rng.random((6, SIDE, SIDE, 1)) < 0.3).astype(np.float32)


def gradients(model: keras.Model, seed: int) -> fused.Weights:
    """Return the gradient of the loss in training mode, by layer."""
    on_jax = keras.backend.backend() == "jax"
    compute = _gradients_with_jax if on_jax else _gradients_with_tensorflow
    values = compute(model, *batch(seed))
    by_path = {v.path: g for v, g in zip(model.trainable_variables, values, strict=True)}
    return {
        layer.name: [np.asarray(by_path[v.path]) for v in layer.trainable_variables]
        for layer in model.layers
        if layer.trainable_variables
    }


def _gradients_with_tensorflow(model: keras.Model, images: np.ndarray, masks: np.ndarray):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = focal_tversky(masks, model(images, training=True), missed_weight=0.7, exponent=0.75)
    return tape.gradient(loss, [v.value for v in model.trainable_variables])


def _gradients_with_jax(model: keras.Model, images: np.ndarray, masks: np.ndarray):
    import jax

    fixed = [v.value for v in model.non_trainable_variables]

    def loss(trainable):
        predicted, _ = model.stateless_call(trainable, fixed, images, training=True)
        return focal_tversky(masks, predicted, missed_weight=0.7, exponent=0.75)

    return jax.grad(loss)([v.value for v in model.trainable_variables])


def predict(model: keras.Model, seed: int, *, training: bool) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(batch(seed)[0], training=training))


def test_the_published_filters_give_1210513_parameters():
    assert fused.build(image_size=256, filters=PUBLISHED).count_params() == 1_210_513


def test_fused_weights_are_unfused_to_the_same_weights():
    before = fused.layer_weights(random_plain(3))
    after = fused.unfuse(fused.fuse(before))
    assert before.keys() == after.keys()
    for name, values in before.items():
        assert all(np.array_equal(a, b) for a, b in zip(values, after[name], strict=True)), name


@pytest.fixture
def normalised_in_steps(monkeypatch):
    """Normalise as Keras does, so that only fusing can make a difference."""
    monkeypatch.setattr(fused, "_in_one", fused._in_steps)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_networks_give_the_same_probabilities(seed, training, normalised_in_steps):
    plain, fused_network = random_pair(seed)
    expected, predicted = (
        predict(model, seed, training=training) for model in (plain, fused_network)
    )
    assert expected.std() > 0.01
    assert np.abs(expected - predicted).max() < 1e-5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_networks_predict_the_same_with_fused_normalisation(seed):
    plain, fused_network = random_pair(seed)
    expected, predicted = (predict(model, seed, training=False) for model in (plain, fused_network))
    assert np.abs(expected - predicted).max() < 1e-5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fused_normalisation_is_as_exact_as_that_of_keras(seed):
    """In training mode, rounding errors of batch statistics add up over the layers, in both."""
    plain, fused_network = random_pair(seed)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        exact = resunet.build(image_size=SIDE, filters=FILTERS, height=SIDE, width=SIDE)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    exact.set_weights(plain.get_weights())
    expected = predict(exact, seed, training=True)
    error_of_fused, error_of_plain = (
        np.abs(predict(model, seed, training=True) - expected).mean()
        for model in (fused_network, plain)
    )
    assert error_of_fused < max(1.5 * error_of_plain, 1e-5)


def test_both_networks_have_the_same_running_averages_after_a_training_step():
    plain, fused_network = random_pair(4)
    for model in (plain, fused_network):
        model(batch(4)[0], training=True)
    expected = fused.fuse(fused.layer_weights(plain))
    for name, values in fused.layer_weights(fused_network).items():
        for value, expected_value in zip(values, expected[name], strict=True):
            assert np.allclose(value, expected_value, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_networks_have_the_same_gradients(seed):
    plain, fused_network = random_pair(seed)
    expected = fused.fuse(_as_weights(gradients(plain, seed)))
    for name, values in gradients(fused_network, seed).items():
        for value, expected_value in zip(values, expected[name], strict=False):
            assert np.abs(value - expected_value).max() < 1e-4, name
    biases = [gradient for name, values in expected.items() for gradient in values[4:]]
    assert biases and all(np.abs(gradient).max() < 1e-4 for gradient in biases)


def test_weights_of_other_widths_are_refused():
    plain = random_plain(1)
    other = fused.build(image_size=SIDE, filters=(4, 6, 8, 10, 14))
    with pytest.raises(ValueError, match="shape"):
        fused.set_layer_weights(other, fused.fuse(fused.layer_weights(plain)))


def _as_weights(gradients: fused.Weights) -> fused.Weights:
    """Complete gradients to the shape of weights: zeros for the averages of normalisations."""
    return {
        name: [*values, *(np.zeros_like(values[0]) for _ in range(2))]
        if name.endswith("_norm")
        else values
        for name, values in gradients.items()
    }
