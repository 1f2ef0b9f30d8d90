"""The ResUNet of `resunet` with fewer operations: the network that is trained.

It is the same function of the same parameters, by three identities that hold for all weights:

- A residual block opens with two 1x1 convolutions of one input: the main path and the
  shortcut. Their kernels are concatenated into one convolution, and so are their
  normalisations.
- A 1x1 convolution of concatenated channels is the sum of one convolution per part, so the
  decoder concatenates nothing.
- A 1x1 convolution of an image that was enlarged by repeating pixels is that of the smaller
  image, enlarged afterwards: a quarter of the work.

A normalisation cancels a bias in front of it, whatever its value. The fused network therefore
does not add it: the normalisation stores it and includes it in its running averages. Its
gradient is zero, so it is not trained. B slices, S x S pixels.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from pipeline.network import architecture
from pipeline.network.architecture import (
    BOTTOM,
    EPSILON,
    MOMENTUM,
    NARROW,
    NORM,
    OUTPUT,
    SHORT,
    WIDE,
)

Weights = dict[str, list[np.ndarray]]  # by name of the layer, in Keras's order

BOTH, BELOW, SKIP = "_both", "_below", "_skip"  # fused convolutions, after a block's name
PAIR = (NARROW, SHORT)
PARTS = (*PAIR, NARROW + NORM, SHORT + NORM)
FUSED = (BOTH, BOTH + NORM, BELOW, SKIP)


def build(*, image_size: int, filters: Sequence[int], dtype: str = "float32") -> keras.Model:
    """Build the fused network, which works at the size of its input.

    Args:
        image_size: S in pixels, a multiple of 16.
        filters: five widths, as `resunet.build` takes them.
        dtype: `float32`, or a policy such as `mixed_bfloat16`: products then have eight bits
            of precision; weights, sums and probabilities stay float32.

    Returns:
        A model that maps (B, S, S, 3) uint8 to (B, S, S, 1) float32 probability, with as many
        parameters as the plain network.
    """
    blocks = _Blocks(dtype)
    top, *down, bottom = filters
    slices = keras.Input((image_size, image_size, 3), dtype="uint8", name="slices")
    x = blocks.opening(layers.Rescaling(1 / 255, dtype=dtype, name="rescale")(slices), top)
    skips = [x]
    for depth, width in enumerate(down, start=1):
        x = blocks.pool(x, name=f"pool_{depth}")
        x = blocks.residual(
            blocks.both(x, width, name=f"down_{depth}"), width, name=f"down_{depth}"
        )
        skips.append(x)
    x = blocks.pool(x, name="pool_bottom")
    x = blocks.residual(blocks.both(x, bottom, name=BOTTOM), bottom, name=BOTTOM)
    for depth, (skip, width) in reversed(list(enumerate(zip(skips, [top, *down], strict=True)))):
        name = architecture.decoder_block(depth)
        x = blocks.residual(blocks.both_of_decoder(x, skip, width, name=name), width, name=name)
    probability = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name=OUTPUT)
    return keras.Model(slices, probability(x), name="fused_resunet")


class _Blocks:
    """Builds the blocks of the network, all of one precision."""

    def __init__(self, dtype: str):
        self._dtype = dtype

    def opening(self, x: Any, width: int) -> Any:
        for name in architecture.OPENING:
            x = self._convolution(width, 3, name=name, activation="relu", use_bias=True)(x)
            x = self._norm(name + NORM, has_bias=False)(x)
        return x

    def pool(self, x: Any, *, name: str) -> Any:
        pooling = Halved if keras.backend.backend() == "jax" else layers.MaxPooling2D
        return pooling(2, dtype=self._dtype, name=name)(x)

    def both(self, x: Any, width: int, *, name: str) -> Any:
        """Apply both 1x1 convolutions that open a block: (B, h, w, 2 * width)."""
        return self._convolution(2 * width, 1, name=name + BOTH)(x)

    def both_of_decoder(self, below: Any, skip: Any, width: int, *, name: str) -> Any:
        """Apply them to `below`, enlarged to the size of `skip`, and to `skip`; add the two."""
        small = self._convolution(2 * width, 1, name=name + BELOW)(below)
        enlarged = layers.UpSampling2D(2, dtype=self._dtype, name=f"{name}_up")(small)
        of_skip = self._convolution(2 * width, 1, name=name + SKIP)(skip)
        return layers.Add(dtype=self._dtype, name=name + BOTH)([enlarged, of_skip])

    def residual(self, both: Any, width: int, *, name: str) -> Any:
        """Apply the rest of a residual block to the output of its two 1x1 convolutions."""
        both = self._norm(name + BOTH + NORM)(both)
        main, short = ops.split(both, 2, axis=-1)
        main = layers.Activation("relu", dtype=self._dtype, name=f"{name}_narrow_relu")(main)
        main = self._convolution(width, 3, name=name + WIDE)(main)
        main = self._norm(name + WIDE + NORM)(main)
        total = layers.Add(dtype=self._dtype, name=f"{name}_add")([main, short])
        return layers.Activation("relu", dtype=self._dtype, name=f"{name}_relu")(total)

    def _norm(self, name: str, *, has_bias: bool = True) -> "Norm":
        return Norm(has_bias=has_bias, dtype=self._dtype, name=name)

    def _convolution(
        self, width: int, side: int, *, name: str, use_bias: bool = False, **options: Any
    ) -> layers.Conv2D:
        return layers.Conv2D(
            width,
            side,
            padding="same",
            kernel_initializer="he_normal",
            use_bias=use_bias,
            dtype=self._dtype,
            name=name,
            **options,
        )


class Halved(layers.MaxPooling2D):  # type: ignore[misc,unused-ignore]  # Keras has no types
    """Max pooling for JAX, whose own gradient of pooling adds pixel by pixel."""

    def call(self, x: Any) -> Any:
        _, height, width, channels = x.shape
        side, _ = self.pool_size
        shape = (-1, height // side, side, width // side, side, channels)
        return ops.max(ops.reshape(x, shape), axis=(2, 4))


class Norm(layers.Layer):  # type: ignore[misc,unused-ignore]  # Keras has no types
    """Batch normalisation as Keras's, which also stores the bias of the convolution before it.

    Its input is the output of that convolution without the bias. Under TensorFlow it is one
    operation that reads the slices twice; Keras's takes six passes over them.

    Args:
        has_bias: whether it stores a bias. The opening convolutions add theirs themselves.
    """

    def __init__(self, *, has_bias: bool, **options: Any):
        super().__init__(**options)
        self._has_bias = has_bias

    def build(self, shape: Sequence[int]) -> None:
        def weight(name: str, start: str, *, trainable: bool) -> keras.Variable:
            return self.add_weight(
                shape=(shape[-1],), initializer=start, trainable=trainable, name=name,
                dtype="float32", autocast=False,
            )  # fmt: skip

        self.gamma = weight("gamma", "ones", trainable=True)
        self.beta = weight("beta", "zeros", trainable=True)
        self.mean = weight("moving_mean", "zeros", trainable=False)
        self.variance = weight("moving_variance", "ones", trainable=False)
        if self._has_bias:
            self.bias = weight("bias", "zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        bias = self.bias if self._has_bias else 0.0
        on_jax = keras.backend.backend() == "jax"
        if not training:
            normalise = _in_steps if on_jax else _in_one
            return normalise(x, self.gamma, self.beta, self.mean - bias, self.variance)[0]
        normalise = _on_jax() if on_jax else _in_one
        gamma, beta = map(ops.convert_to_tensor, (self.gamma, self.beta))
        y, mean, variance = normalise(x, gamma, beta)
        self.mean.assign(MOMENTUM * self.mean + (1 - MOMENTUM) * (mean + bias))
        self.variance.assign(MOMENTUM * self.variance + (1 - MOMENTUM) * variance)
        return y

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def _in_one(x: Any, gamma: Any, beta: Any, mean: Any = None, variance: Any = None) -> Any:
    """Normalise in one operation of TensorFlow.

    Args:
        mean, variance: (C,) to normalise with; None: those of the batch.

    Returns:
        Normalised x, and the mean and variance it was normalised with.
    """
    import tensorflow as tf

    of_batch = mean is None
    y, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=tf.convert_to_tensor(gamma), offset=tf.convert_to_tensor(beta),
        mean=tf.zeros([0]) if of_batch else tf.convert_to_tensor(mean),
        variance=tf.zeros([0]) if of_batch else tf.convert_to_tensor(variance),
        epsilon=EPSILON, is_training=of_batch,
    )  # fmt: skip
    count = tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float32)
    # The operation divides by n - 1 for the variance, Keras by n.
    return y, batch_mean, batch_variance * (count - 1) / count


def _in_steps(x: Any, gamma: Any, beta: Any, mean: Any = None, variance: Any = None) -> Any:
    """Do the same as `_in_one` by operations that every backend has."""
    wide = ops.cast(x, "float32")
    if mean is None:
        mean, variance = ops.moments(wide, axes=(0, 1, 2))
    scale = gamma * ops.rsqrt(variance + EPSILON)
    return ops.cast(wide * scale + (beta - mean * scale), x.dtype), mean, variance


@cache
def _on_jax() -> Any:
    """Return `_in_steps` over a batch with a hand-written gradient.

    Forward and backward pass each read the slices twice; the gradient that JAX derives reads
    them four times.
    """
    import jax
    import jax.numpy as jnp

    def forward(x: Any, gamma: Any, beta: Any) -> Any:
        wide = x.astype(jnp.float32)
        # Moments about one of the values: no pass for the mean is needed before, and no digits
        # are lost.
        origin = wide[0, x.shape[1] // 2, x.shape[2] // 2]
        centred = wide - origin
        offset = centred.mean((0, 1, 2))
        variance = jnp.maximum((centred * centred).mean((0, 1, 2)) - offset * offset, 0.0)
        mean, inverse = origin + offset, jax.lax.rsqrt(variance + EPSILON)
        y = (wide * (gamma * inverse) + (beta - mean * gamma * inverse)).astype(x.dtype)
        return (y, mean, variance), (x, gamma, mean, inverse)

    def backward(residuals: Any, gradients: Any) -> Any:
        x, gamma, mean, inverse = residuals
        of_y = gradients[0].astype(jnp.float32)
        normal = (x.astype(jnp.float32) - mean) * inverse
        of_beta, of_gamma = of_y.sum((0, 1, 2)), (of_y * normal).sum((0, 1, 2))
        share = x.shape[-1] / x.size
        of_x = gamma * inverse * (of_y - share * of_beta - normal * (share * of_gamma))
        return of_x.astype(x.dtype), of_gamma, of_beta

    norm = jax.custom_vjp(lambda *inputs: forward(*inputs)[0])
    norm.defvjp(forward, backward)
    return norm


def fuse(plain: Weights) -> Weights:
    """Convert weights of the plain network to those of the fused one."""
    weights = {name: values for name, values in plain.items() if not name.endswith(PARTS)}
    for block in _blocks(plain):
        kernel, bias = (np.concatenate(pair, axis=-1) for pair in _pairs(plain, block, ""))
        if architecture.is_decoder_block(block):
            below = kernel.shape[2] - _skip_width(plain, block)
            weights[block + BELOW] = [kernel[:, :, :below]]
            weights[block + SKIP] = [kernel[:, :, below:]]
        else:
            weights[block + BOTH] = [kernel]
        norm = [np.concatenate(pair) for pair in _pairs(plain, block, NORM)]
        weights[block + BOTH + NORM] = [*norm, bias]
        wide, wide_bias = plain[block + WIDE]
        weights[block + WIDE] = [wide]
        weights[block + WIDE + NORM] = [*plain[block + WIDE + NORM], wide_bias]
    return weights


def unfuse(fused: Weights) -> Weights:
    """Convert weights of the fused network to those of the plain one; the inverse of `fuse`."""
    weights = {name: values for name, values in fused.items() if not name.endswith(FUSED)}
    for block in [name.removesuffix(BOTH + NORM) for name in fused if name.endswith(BOTH + NORM)]:
        if architecture.is_decoder_block(block):
            kernel = np.concatenate([*fused[block + BELOW], *fused[block + SKIP]], axis=2)
        else:
            (kernel,) = fused[block + BOTH]
        *norm, bias = fused[block + BOTH + NORM]
        halves = [np.split(values, 2, axis=-1) for values in (kernel, bias, *norm)]
        for part, (part_kernel, part_bias, *part_norm) in zip(
            PAIR, zip(*halves, strict=True), strict=True
        ):
            weights[block + part] = [part_kernel, part_bias]
            weights[block + part + NORM] = part_norm
        *norm, bias = fused[block + WIDE + NORM]
        weights[block + WIDE] = [*fused[block + WIDE], bias]
        weights[block + WIDE + NORM] = norm
    return weights


def layer_weights(model: keras.Model) -> Weights:
    """Return the weights of a model by layer, for layers that have any."""
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def set_layer_weights(model: keras.Model, values: Weights) -> None:
    """Set the weights of a model whose layers have these names and shapes.

    Raises:
        KeyError, ValueError: the weights belong to another network.
    """
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(values[layer.name])


def _blocks(plain: Weights) -> list[str]:
    return [name.removesuffix(NARROW) for name in plain if name.endswith(NARROW)]


def _pairs(plain: Weights, block: str, suffix: str) -> Iterator[tuple[np.ndarray, ...]]:
    """Pair the weights of main path and shortcut: kernels and biases, or with NORM, norms."""
    return zip(*(plain[block + part + suffix] for part in PAIR), strict=True)


def _skip_width(plain: Weights, block: str) -> int:
    """Return how many channels a decoder block gets from the encoder."""
    return int(plain[architecture.skip_source(block)][0].shape[-1])
