"""What runs compiled: a training step (slices changed, shown, weights moved), and judging.

One meaning, two backends. Slices are taken by position from arrays that lie on the device or
came from the host: the caller decides. N slices in such arrays, T steps of B slices, S x S
pixels. Does not know epochs, files or patients.
"""

from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from pipeline.network import augment
from pipeline.network.losses import FocalTversky

CUT = 0.5  # a probability from here on is tumour, while training


class Steps(Protocol):
    """The compiled steps of one network.

    images: (N, S, S, 3) uint8; masks: (N, S, S) uint8, share of tumour times 255.
    """

    def train(self, images, masks, chosen: np.ndarray, drawn: augment.Drawn | None) -> np.ndarray:
        """Take T steps.

        Args:
            chosen: (T, B) positions in the arrays.
            drawn: of (T, B, ...) values, how the slices are changed; None leaves them.

        Returns:
            (T,) loss of each step before its weights were moved.
        """

    def judge(self, images, masks, chosen: np.ndarray, counts: np.ndarray) -> tuple[Any, Any]:
        """Predict and compare; changes nothing.

        Args:
            chosen: (T, B) positions in the arrays.
            counts: (T, B) bool; what is False fills a batch and counts for nothing.

        Returns:
            (T, B, 3) pixels hit, of tumour and predicted, cut at 0.5; (T,) loss of each batch.
        """


def make(model: keras.Model) -> Steps:
    """Steps of a compiled model, for the backend that Keras runs on."""
    if keras.backend.backend() == "jax":
        return _Jax(model)
    return _TensorFlow(model)


def place(array: np.ndarray) -> Any:
    """Bring an array to the device for good; to each, where there are several.

    Under JAX with room behind it, so that a set of about as many slices needs no other program.
    """
    if keras.backend.backend() == "jax":
        array = _with_room(array)
    return _laid(array, spread=False) if several() else ops.convert_to_tensor(array)


def several() -> bool:
    """Whether Keras was told to use several devices."""
    return keras.distribution.distribution() is not None


def _shown(images, masks, chosen, drawn):
    """The slices of one step as the network sees them, (B, S, S, 3) uint8, and their masks:
    (B, S, S, 1) share of tumour in [0, 1].
    """
    images = ops.take(images, chosen, axis=0)
    masks = ops.cast(ops.take(masks, chosen, axis=0)[..., None], "float32") / 255.0
    return (images, masks) if drawn is None else augment.apply(images, masks, drawn)


def _compared(probability, masks, counts, loss: FocalTversky):
    """Pixels (B, 3) hit, of tumour and predicted, and the loss; masks as in `_shown`."""
    counts = ops.cast(counts, "float32")[:, None, None, None]
    probability, masks = probability * counts, masks * counts
    found, truth = probability >= CUT, masks >= 128 / 255
    pixels = [ops.logical_and(found, truth), truth, found]
    sums = [ops.sum(ops.cast(one, "int32"), axis=(1, 2, 3)) for one in pixels]
    return ops.stack(sums, axis=-1), loss(masks, probability)


class _TensorFlow:
    def __init__(self, model: keras.Model):
        import tensorflow as tf

        self._model = model
        compiled = tf.function(jit_compile=bool(model.jit_compile), reduce_retracing=True)
        self._train, self._judge = compiled(self._one), compiled(self._compare)

    def train(self, images, masks, chosen: np.ndarray, drawn: augment.Drawn | None) -> np.ndarray:
        return np.array(
            [
                self._train(images, masks, own, None if drawn is None else drawn.of(step))
                for step, own in enumerate(chosen)
            ]
        )

    def judge(self, images, masks, chosen: np.ndarray, counts: np.ndarray) -> tuple[Any, Any]:
        found = [
            self._judge(images, masks, own, mark) for own, mark in zip(chosen, counts, strict=True)
        ]
        pixels, losses = zip(*found, strict=True)
        return np.array(pixels), np.array(losses)

    def _one(self, images, masks, chosen, drawn):
        import tensorflow as tf

        model = self._model
        images, masks = _shown(images, masks, chosen, drawn)
        with tf.GradientTape() as tape:
            loss = model.loss(masks, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    def _compare(self, images, masks, chosen, counts):
        images, masks = _shown(images, masks, chosen, None)
        return _compared(self._model(images, training=False), masks, counts, self._model.loss)


class _Jax:
    """All T steps are one compiled program, so that the host is asked once.

    It is compiled for a rounded number of steps and told how many to take: an epoch, or a fold,
    of about as many needs no other.
    """

    def __init__(self, model: keras.Model):
        import jax

        self._model = model
        self._train = jax.jit(self._all, donate_argnums=0)
        self._judge = jax.jit(self._compare_all)
        self._gradient = jax.value_and_grad(self._loss, has_aux=True)

    def train(self, images, masks, chosen: np.ndarray, drawn: augment.Drawn | None) -> np.ndarray:
        model = self._model
        variables = (
            model.trainable_variables, model.non_trainable_variables, model.optimizer.variables,
        )  # fmt: skip
        state = tuple([one.value for one in part] for part in variables)
        steps = _spread(*_with_room([chosen, drawn]))
        state, losses = self._train(state, images, masks, len(chosen), *steps)
        for part, values in zip(variables, state, strict=True):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value)
        return np.asarray(losses)[: len(chosen)]

    def judge(self, images, masks, chosen: np.ndarray, counts: np.ndarray) -> tuple[Any, Any]:
        model = self._model
        trained, kept = (
            [one.value for one in part]
            for part in (model.trainable_variables, model.non_trainable_variables)
        )
        steps = _spread(*_with_room([chosen, counts]))
        pixels, losses = self._judge(trained, kept, images, masks, len(chosen), *steps)
        return np.asarray(pixels)[: len(chosen)], np.asarray(losses)[: len(chosen)]

    def _all(self, state, images, masks, count, chosen, drawn):
        import jax

        def one(step, found):
            (trained, kept, moments), losses = found
            own = jax.tree.map(lambda part: part[step], (chosen, drawn))
            shown, truth = _shown(images, masks, *own)
            (loss, kept), gradients = self._gradient(trained, kept, shown, truth)
            trained, moments = self._model.optimizer.stateless_apply(moments, gradients, trained)
            return (trained, kept, moments), losses.at[step].set(loss)

        return jax.lax.fori_loop(0, count, one, (state, ops.zeros(len(chosen))))

    def _loss(self, trained, kept, images, masks):
        found, kept = self._model.stateless_call(trained, kept, images, training=True)
        return self._model.loss(masks, found), kept

    def _compare_all(self, trained, kept, images, masks, count, chosen, counts):
        import jax

        def one(step, found):
            shown, truth = _shown(images, masks, chosen[step], None)
            predicted, _ = self._model.stateless_call(trained, kept, shown, training=False)
            own = _compared(predicted, truth, counts[step], self._model.loss)
            return tuple(room.at[step].set(one) for room, one in zip(found, own, strict=True))

        none = ops.zeros((*chosen.shape, 3), "int32"), ops.zeros(len(chosen))
        return jax.lax.fori_loop(0, count, one, none)


def _with_room(parts: Any) -> Any:
    """Arrays with zeros behind them, up to the next eighth of a power of two along the first axis."""

    def one(array):
        length = len(array)
        step = 2 ** max(length.bit_length() - 3, 0)
        return np.concatenate([array, np.zeros((-length % step, *array.shape[1:]), array.dtype)])

    return keras.tree.map_structure(lambda part: None if part is None else one(part), parts)


def _spread(*parts: Any) -> list[Any]:
    """Values (T, B, ...) with the slices of each step dealt to the devices."""
    if not several():
        return list(parts)
    return keras.tree.map_structure(
        lambda part: None if part is None else _laid(part, spread=True), list(parts)
    )


def _laid(array: np.ndarray, *, spread: bool) -> Any:
    """An array on all devices: whole on each, or its second axis dealt to them."""
    mesh = keras.distribution.distribution().device_mesh
    axes: list[str | None] = [None] * np.ndim(array)
    if spread:
        axes[1] = mesh.axis_names[0]
    layout = keras.distribution.TensorLayout(axes, mesh)
    return keras.distribution.distribute_tensor(array, layout)
