"""The lean network is the drawn one: same parameters, outputs and gradients.

Under `KERAS_BACKEND=jax` too, where it normalises and pools in another way.
"""

import keras
import numpy as np
import pytest

from pipeline.network import lean, resunet
from pipeline.network.losses import focal_tversky

FILTERS = (4, 6, 8, 10, 12)
SIDE = 32
PUBLISHED = (16, 32, 64, 128, 256)


def drawn_at_random(seed: int, filters=FILTERS) -> keras.Model:
    model = resunet.build(image_size=SIDE, filters=filters, height=SIDE, width=SIDE)
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.name in ("moving_variance", "gamma"):
            low, high = 0.5, 1.5
        else:
            high = 2.4 / np.sqrt(np.prod(variable.shape[:-1])) if len(variable.shape) == 4 else 0.5
            low = -high
        variable.assign(generator.uniform(low, high, variable.shape))
    return model


def pair(seed: int, filters=FILTERS) -> tuple[keras.Model, keras.Model]:
    drawn = drawn_at_random(seed, filters)
    fast = lean.build(image_size=SIDE, filters=filters)
    lean.assign(fast, lean.to_lean(lean.weights(drawn)))
    return drawn, fast


def shown(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)
    return images, (generator.random((6, SIDE, SIDE, 1)) < 0.3).astype(np.float32)


def gradients(model: keras.Model, seed: int) -> lean.Weights:
    """Gradient of the loss by layer, in training mode."""
    by = _gradients_of_jax if keras.backend.backend() == "jax" else _gradients_of_tensorflow
    found = by(model, *shown(seed))
    by_path = {v.path: g for v, g in zip(model.trainable_variables, found, strict=True)}
    return {
        layer.name: [np.asarray(by_path[v.path]) for v in layer.trainable_variables]
        for layer in model.layers
        if layer.trainable_variables
    }


def _gradients_of_tensorflow(model: keras.Model, images: np.ndarray, masks: np.ndarray):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = focal_tversky(masks, model(images, training=True), missed_weight=0.7, exponent=0.75)
    return tape.gradient(loss, [v.value for v in model.trainable_variables])


def _gradients_of_jax(model: keras.Model, images: np.ndarray, masks: np.ndarray):
    import jax

    kept = [v.value for v in model.non_trainable_variables]

    def loss(trained):
        found, _ = model.stateless_call(trained, kept, images, training=True)
        return focal_tversky(masks, found, missed_weight=0.7, exponent=0.75)

    return jax.grad(loss)([v.value for v in model.trainable_variables])


def found(model: keras.Model, seed: int, *, training: bool) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(shown(seed)[0], training=training))


def test_the_published_filters_make_as_many_parameters():
    assert lean.build(image_size=256, filters=PUBLISHED).count_params() == 1_210_513


def test_weights_carried_over_and_back_are_the_same():
    before = lean.weights(drawn_at_random(3))
    after = lean.to_drawn(lean.to_lean(before))
    assert before.keys() == after.keys()
    for name, own in before.items():
        assert all(np.array_equal(a, b) for a, b in zip(own, after[name], strict=True)), name


@pytest.fixture
def by_steps(monkeypatch):
    """Normalisation as Keras computes it, so that what is left to differ is the rewriting."""
    monkeypatch.setattr(lean, "_in_one", lean._in_steps)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_give_the_same_probabilities(seed, training, by_steps):
    drawn, fast = pair(seed)
    one, other = (found(model, seed, training=training) for model in (drawn, fast))
    assert one.std() > 0.01
    assert np.abs(one - other).max() < 1e-5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_use_both_give_the_same_probabilities(seed):
    drawn, fast = pair(seed)
    one, other = (found(model, seed, training=False) for model in (drawn, fast))
    assert np.abs(one - other).max() < 1e-5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_normalising_in_one_operation_is_as_exact_as_keras(seed):
    """In training mode the rounding of batch statistics adds up over the layers, in both."""
    drawn, fast = pair(seed)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        exact = resunet.build(image_size=SIDE, filters=FILTERS, height=SIDE, width=SIDE)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    exact.set_weights(drawn.get_weights())
    truth = found(exact, seed, training=True)
    own, theirs = (np.abs(found(m, seed, training=True) - truth).mean() for m in (fast, drawn))
    assert own < max(1.5 * theirs, 1e-5)


def test_both_keep_the_same_averages_after_a_step_in_training():
    drawn, fast = pair(4)
    for model in (drawn, fast):
        model(shown(4)[0], training=True)
    expected = lean.to_lean(lean.weights(drawn))
    for name, own in lean.weights(fast).items():
        for one, other in zip(own, expected[name], strict=True):
            assert np.allclose(one, other, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_have_the_same_gradients(seed):
    drawn, fast = pair(seed)
    expected = lean.to_lean(_whole(gradients(drawn, seed)))
    found = gradients(fast, seed)
    for name, own in found.items():
        for one, other in zip(own, expected[name], strict=False):
            assert np.abs(one - other).max() < 1e-4, name
    biases = [gradient for name, own in expected.items() for gradient in own[4:]]
    assert biases and all(np.abs(gradient).max() < 1e-4 for gradient in biases)


def test_other_widths_are_refused():
    drawn = drawn_at_random(1)
    other = lean.build(image_size=SIDE, filters=(4, 6, 8, 10, 14))
    with pytest.raises(ValueError, match="shape"):
        lean.assign(other, lean.to_lean(lean.weights(drawn)))


def _whole(found: lean.Weights) -> lean.Weights:
    """Gradients as weights: normalisations have no gradient of their averages, so zeros there."""
    return {
        name: [*own, *(np.zeros_like(own[0]) for _ in range(2))] if name.endswith("_norm") else own
        for name, own in found.items()
    }
