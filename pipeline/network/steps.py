"""The compiled steps: train (augment, predict, update weights) and validate.

One protocol, two backends. Slices are taken by position from arrays, which lie on the device
or on the host: the caller decides. N slices in such arrays, T steps of B slices, S x S
pixels. Does not know epochs, files or patients.
"""

from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from pipeline.network import augment
from pipeline.network.losses import FocalTversky

CUT = 0.5  # while training, a probability of at least this is tumour


class Steps(Protocol):
    """The compiled steps of one network.

    images: (N, S, S, 3) uint8; masks: (N, S, S) uint8, share of tumour times 255.
    """

    def train(
        self, images: Any, masks: Any, chosen: np.ndarray, sampled: augment.Sampled | None
    ) -> np.ndarray:
        """Take T training steps.

        Args:
            chosen: (T, B) positions in the arrays.
            sampled: augmentation parameters, (T, B, ...); None: no augmentation.

        Returns:
            (T,) loss of each step before its update.
        """

    def validate(
        self, images: Any, masks: Any, chosen: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict T batches and compare them with the masks; change nothing.

        Args:
            chosen: (T, B) positions in the arrays.
            counts: (T, B) bool; False for slices that only fill a batch.

        Returns:
            (T, B, 3) true positive, tumour and predicted pixels at threshold 0.5, and (T,)
            loss of each batch.
        """


def compile_steps(model: keras.Model) -> Steps:
    """Return the steps of a compiled model, for the backend that Keras runs on."""
    if keras.backend.backend() == "jax":
        return _Jax(model)
    return _TensorFlow(model)


def place_on_device(array: np.ndarray) -> Any:
    """Copy an array to the device for the whole training; to each of several devices.

    Under JAX it is padded, so that a set of about as many slices needs no other program.
    """
    if keras.backend.backend() == "jax":
        array = _pad(array)
    return _lay_out(array, split=False) if uses_several_devices() else ops.convert_to_tensor(array)


def uses_several_devices() -> bool:
    """Return whether Keras is set to use several devices."""
    return keras.distribution.distribution() is not None


def _slices_of_step(
    images: Any, masks: Any, chosen: Any, sampled: augment.Sampled | None
) -> tuple[Any, Any]:
    """Take and augment the slices of one step.

    Returns:
        (B, S, S, 3) uint8 images and (B, S, S, 1) masks, share of tumour in [0, 1].
    """
    images = ops.take(images, chosen, axis=0)
    masks = ops.cast(ops.take(masks, chosen, axis=0)[..., None], "float32") / 255.0
    return (images, masks) if sampled is None else augment.apply(images, masks, sampled)


def _compare(probability: Any, masks: Any, counts: Any, loss: FocalTversky) -> tuple[Any, Any]:
    """Compare one batch with its masks (as `_slices_of_step` returns them).

    Returns:
        (B, 3) true positive, tumour and predicted pixels, and the loss.
    """
    counts = ops.cast(counts, "float32")[:, None, None, None]
    probability, masks = probability * counts, masks * counts
    predicted, truth = probability >= CUT, masks >= 128 / 255
    areas = [ops.logical_and(predicted, truth), truth, predicted]
    pixels = [ops.sum(ops.cast(area, "int32"), axis=(1, 2, 3)) for area in areas]
    return ops.stack(pixels, axis=-1), loss(masks, probability)


class _TensorFlow:
    def __init__(self, model: keras.Model):
        import tensorflow as tf

        self._model = model
        compiled = tf.function(jit_compile=bool(model.jit_compile), reduce_retracing=True)
        self._train, self._validate = compiled(self._train_step), compiled(self._validate_batch)

    def train(
        self, images: Any, masks: Any, chosen: np.ndarray, sampled: augment.Sampled | None
    ) -> np.ndarray:
        return np.array(
            [
                self._train(images, masks, positions, None if sampled is None else sampled.at(step))
                for step, positions in enumerate(chosen)
            ]
        )

    def validate(
        self, images: Any, masks: Any, chosen: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        results = [
            self._validate(images, masks, positions, counts_of_batch)
            for positions, counts_of_batch in zip(chosen, counts, strict=True)
        ]
        pixels, losses = zip(*results, strict=True)
        return np.array(pixels), np.array(losses)

    def _train_step(self, images: Any, masks: Any, chosen: Any, sampled: Any) -> Any:
        import tensorflow as tf

        model = self._model
        images, masks = _slices_of_step(images, masks, chosen, sampled)
        with tf.GradientTape() as tape:
            loss = model.loss(masks, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    def _validate_batch(self, images: Any, masks: Any, chosen: Any, counts: Any) -> Any:
        images, masks = _slices_of_step(images, masks, chosen, None)
        return _compare(self._model(images, training=False), masks, counts, self._model.loss)


class _Jax:
    """Compiles all T steps into one program, so that the host is involved once.

    The program is compiled for a rounded number of steps and takes the actual number as an
    argument: an epoch or a fold of about as many steps needs no other program.
    """

    def __init__(self, model: keras.Model):
        import jax

        self._model = model
        self._train = jax.jit(self._train_steps, donate_argnums=0)
        self._validate = jax.jit(self._validate_batches)
        self._gradient = jax.value_and_grad(self._loss, has_aux=True)

    def train(
        self, images: Any, masks: Any, chosen: np.ndarray, sampled: augment.Sampled | None
    ) -> np.ndarray:
        model = self._model
        groups = (
            model.trainable_variables, model.non_trainable_variables, model.optimizer.variables,
        )  # fmt: skip
        state = tuple(map(_values, groups))
        inputs = _split_over_devices(*_pad([chosen, sampled]))
        state, losses = self._train(state, images, masks, len(chosen), *inputs)
        for variables, values in zip(groups, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return np.asarray(losses)[: len(chosen)]

    def validate(
        self, images: Any, masks: Any, chosen: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        trainable = _values(self._model.trainable_variables)
        fixed = _values(self._model.non_trainable_variables)
        inputs = _split_over_devices(*_pad([chosen, counts]))
        pixels, losses = self._validate(trainable, fixed, images, masks, len(chosen), *inputs)
        return np.asarray(pixels)[: len(chosen)], np.asarray(losses)[: len(chosen)]

    def _train_steps(
        self, state: Any, images: Any, masks: Any, count: Any, chosen: Any, sampled: Any
    ) -> Any:
        import jax

        def train_step(step: Any, carried: Any) -> Any:
            (trainable, fixed, moments), losses = carried
            inputs = jax.tree.map(lambda values: values[step], (chosen, sampled))
            batch = _slices_of_step(images, masks, *inputs)
            (loss, fixed), gradients = self._gradient(trainable, fixed, *batch)
            trainable, moments = self._model.optimizer.stateless_apply(
                moments, gradients, trainable
            )
            return (trainable, fixed, moments), losses.at[step].set(loss)

        return jax.lax.fori_loop(0, count, train_step, (state, ops.zeros(len(chosen))))

    def _loss(self, trainable: Any, fixed: Any, images: Any, masks: Any) -> tuple[Any, Any]:
        predicted, fixed = self._model.stateless_call(trainable, fixed, images, training=True)
        return self._model.loss(masks, predicted), fixed

    def _validate_batches(
        self, trainable: Any, fixed: Any, images: Any, masks: Any, count: Any, chosen: Any,
        counts: Any,
    ) -> Any:  # fmt: skip
        import jax

        def validate_batch(step: Any, results: Any) -> Any:
            batch, truth = _slices_of_step(images, masks, chosen[step], None)
            predicted, _ = self._model.stateless_call(trainable, fixed, batch, training=False)
            compared = _compare(predicted, truth, counts[step], self._model.loss)
            return tuple(
                array.at[step].set(value) for array, value in zip(results, compared, strict=True)
            )

        empty = ops.zeros((*chosen.shape, 3), "int32"), ops.zeros(len(chosen))
        return jax.lax.fori_loop(0, count, validate_batch, empty)


def _values(variables: Any) -> list[Any]:
    return [variable.value for variable in variables]


def _pad(arrays: Any) -> Any:
    """Pad arrays with zeros along the first axis, up to the next eighth of a power of two."""

    def pad(array: np.ndarray) -> np.ndarray:
        length = len(array)
        step = 2 ** max(length.bit_length() - 3, 0)
        return np.concatenate([array, np.zeros((-length % step, *array.shape[1:]), array.dtype)])

    return keras.tree.map_structure(lambda array: None if array is None else pad(array), arrays)


def _split_over_devices(*arrays: Any) -> Any:
    """Split the slices of each step, the second axis of (T, B, ...), over the devices."""
    if not uses_several_devices():
        return list(arrays)
    return keras.tree.map_structure(
        lambda array: None if array is None else _lay_out(array, split=True), list(arrays)
    )


def _lay_out(array: np.ndarray, *, split: bool) -> Any:
    """Place an array on all devices: whole on each, or with its second axis split over them."""
    mesh = keras.distribution.distribution().device_mesh
    axes: list[str | None] = [None] * np.ndim(array)
    if split:
        axes[1] = mesh.axis_names[0]
    layout = keras.distribution.TensorLayout(axes, mesh)
    return keras.distribution.distribute_tensor(array, layout)
