"""The ResUNet of `resunet`, computed with less work: what trains.

The same function of the same parameters, by three identities that hold for every weight:

- A residual block opens with two 1x1 convolutions of one input, main path and shortcut.
  Their kernels stand side by side in one convolution, and so do their normalisations.
- A 1x1 convolution of channels laid side by side is the sum of one convolution each, so
  nothing is laid side by side in the decoder.
- A 1x1 convolution of an image whose pixels were repeated is that of the smaller image, its
  pixels repeated afterwards: a quarter of the work.

A bias in front of a normalisation is taken out again by it, whatever its value, so it is not
added: the normalisation keeps it, and its averages count it in. Its gradient is zero, so it
is not trained. B slices, S x S pixels.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import keras
import numpy as np
from keras import layers, ops

from pipeline.network.resunet import MOMENTUM

Weights = dict[str, list[np.ndarray]]  # by name of the layer, in Keras's order

EPSILON = 1e-3  # Keras's own
PAIR = ("_narrow", "_short")
HALVES = (*PAIR, "_narrow_norm", "_short_norm")
JOINED = ("_both", "_both_norm", "_below", "_skip")


def build(*, image_size: int, filters: Sequence[int], dtype: str = "float32") -> keras.Model:
    """Make the network at its own size.

    Args:
        image_size: S in pixels, a multiple of 16.
        filters: five widths, as `resunet.build` takes them.
        dtype: `float32`, or a policy such as `mixed_bfloat16`: what is multiplied then has
            eight bits of precision; weights, sums and probabilities stay float32.

    Returns:
        A model that maps (B, S, S, 3) uint8 to (B, S, S, 1) float32 probability, with as many
        parameters as the drawn one.
    """
    part = _Parts(dtype)
    top, *down, bottom = filters
    slices = keras.Input((image_size, image_size, 3), dtype="uint8", name="slices")
    x = part.opening(layers.Rescaling(1 / 255, dtype=dtype, name="rescale")(slices), top)
    skips = [x]
    for depth, width in enumerate(down, start=1):
        x = part.halved(x, name=f"pool_{depth}")
        x = part.block(part.wide(x, width, name=f"down_{depth}"), width, name=f"down_{depth}")
        skips.append(x)
    x = part.halved(x, name="pool_bottom")
    x = part.block(part.wide(x, bottom, name="bottom"), bottom, name="bottom")
    for depth, (skip, width) in reversed(list(enumerate(zip(skips, [top, *down], strict=True)))):
        name = f"rise_{depth}"
        x = part.block(part.joined(x, skip, width, name=name), width, name=name)
    probability = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name="probability")
    return keras.Model(slices, probability(x), name="lean_resunet")


class _Parts:
    """Layers of one precision."""

    def __init__(self, dtype: str):
        self._dtype = dtype

    def opening(self, x, width: int):
        for step in (1, 2):
            name = f"open_{step}"
            x = self._convolution(width, 3, name=name, activation="relu", use_bias=True)(x)
            x = self._norm(f"{name}_norm", has_bias=False)(x)
        return x

    def halved(self, x, *, name: str):
        pool = Halved if keras.backend.backend() == "jax" else layers.MaxPooling2D
        return pool(2, dtype=self._dtype, name=name)(x)

    def wide(self, x, width: int, *, name: str):
        """Both 1x1 convolutions that open a block, in one: (B, h, w, 2 * width)."""
        return self._convolution(2 * width, 1, name=f"{name}_both")(x)

    def joined(self, below, skip, width: int, *, name: str):
        """The same over `below`, repeated to the size of `skip`, beside `skip`."""
        small = self._convolution(2 * width, 1, name=f"{name}_below")(below)
        grown = layers.UpSampling2D(2, dtype=self._dtype, name=f"{name}_up")(small)
        beside = self._convolution(2 * width, 1, name=f"{name}_skip")(skip)
        return layers.Add(dtype=self._dtype, name=f"{name}_both")([grown, beside])

    def block(self, both, width: int, *, name: str):
        """The rest of a residual block, from what its two 1x1 convolutions gave."""
        both = self._norm(f"{name}_both_norm")(both)
        main, short = ops.split(both, 2, axis=-1)
        main = layers.Activation("relu", dtype=self._dtype, name=f"{name}_narrow_relu")(main)
        main = self._convolution(width, 3, name=f"{name}_wide")(main)
        main = self._norm(f"{name}_wide_norm")(main)
        total = layers.Add(dtype=self._dtype, name=f"{name}_add")([main, short])
        return layers.Activation("relu", dtype=self._dtype, name=f"{name}_relu")(total)

    def _norm(self, name: str, *, has_bias: bool = True):
        return Norm(has_bias=has_bias, dtype=self._dtype, name=name)

    def _convolution(self, width: int, side: int, *, name: str, use_bias: bool = False, **options):
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


class Halved(layers.MaxPooling2D):
    """The same as its parent, for JAX, whose gradient of pooling adds pixel by pixel."""

    def call(self, x):
        _, height, width, channels = x.shape
        side, _ = self.pool_size
        shape = (-1, height // side, side, width // side, side, channels)
        return ops.max(ops.reshape(x, shape), axis=(2, 4))


class Norm(layers.Layer):
    """Batch normalisation as Keras's, with the bias of the convolution in front of it.

    Takes what that convolution gave without its bias. Under TensorFlow it is one operation
    that reads the slices twice, where Keras's takes six passes over them.

    Args:
        has_bias: whether the convolution has one.
    """

    def __init__(self, *, has_bias: bool, **options):
        super().__init__(**options)
        self._has_bias = has_bias

    def build(self, shape):
        def weight(name: str, start: str, *, trainable: bool):
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

    def call(self, x, training=False):
        bias = self.bias if self._has_bias else 0.0
        on_jax = keras.backend.backend() == "jax"
        pass_over = _in_steps if on_jax else _in_one
        if not training:
            return pass_over(x, self.gamma, self.beta, self.mean - bias, self.variance)[0]
        pass_over = _on_jax() if on_jax else _in_one
        gamma, beta = map(ops.convert_to_tensor, (self.gamma, self.beta))
        y, mean, variance = pass_over(x, gamma, beta)
        self.mean.assign(MOMENTUM * self.mean + (1 - MOMENTUM) * (mean + bias))
        self.variance.assign(MOMENTUM * self.variance + (1 - MOMENTUM) * variance)
        return y

    def compute_output_shape(self, shape):
        return shape


def _in_one(x, gamma, beta, mean=None, variance=None):
    """Normalised x with the mean and variance that did it: those given, or the batch's own."""
    import tensorflow as tf

    own = mean is None
    y, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=tf.convert_to_tensor(gamma), offset=tf.convert_to_tensor(beta),
        mean=tf.zeros([0]) if own else tf.convert_to_tensor(mean),
        variance=tf.zeros([0]) if own else tf.convert_to_tensor(variance),
        epsilon=EPSILON, is_training=own,
    )  # fmt: skip
    count = tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float32)
    # The operation gives the variance of a sample, n - 1 below the line; Keras's has n.
    return y, batch_mean, batch_variance * (count - 1) / count


def _in_steps(x, gamma, beta, mean=None, variance=None):
    """The same, by operations that every backend has."""
    wide = ops.cast(x, "float32")
    if mean is None:
        mean, variance = ops.moments(wide, axes=(0, 1, 2))
    scale = gamma * ops.rsqrt(variance + EPSILON)
    return ops.cast(wide * scale + (beta - mean * scale), x.dtype), mean, variance


@cache
def _on_jax():
    """`_in_steps` over a batch, with its gradient written down: each way reads the slices twice,
    where what JAX derives reads them four times.
    """
    import jax
    import jax.numpy as jnp

    def forward(x, gamma, beta):
        wide = x.astype(jnp.float32)
        # Sums of what is left after one of the values: no mean is needed first, no digits are lost.
        near = wide[0, x.shape[1] // 2, x.shape[2] // 2]
        left = wide - near
        offset = left.mean((0, 1, 2))
        variance = jnp.maximum((left * left).mean((0, 1, 2)) - offset * offset, 0.0)
        mean, inverse = near + offset, jax.lax.rsqrt(variance + EPSILON)
        y = (wide * (gamma * inverse) + (beta - mean * gamma * inverse)).astype(x.dtype)
        return (y, mean, variance), (x, gamma, mean, inverse)

    def backward(kept, gradients):
        x, gamma, mean, inverse = kept
        of_y = gradients[0].astype(jnp.float32)
        normal = (x.astype(jnp.float32) - mean) * inverse
        of_beta, of_gamma = of_y.sum((0, 1, 2)), (of_y * normal).sum((0, 1, 2))
        share = x.shape[-1] / x.size
        of_x = gamma * inverse * (of_y - share * of_beta - normal * (share * of_gamma))
        return of_x.astype(x.dtype), of_gamma, of_beta

    norm = jax.custom_vjp(lambda *all: forward(*all)[0])
    norm.defvjp(forward, backward)
    return norm


def to_lean(drawn: Weights) -> Weights:
    """The weights of the drawn network, as the lean one has them."""
    found = {name: own for name, own in drawn.items() if not name.endswith(HALVES)}
    for block in _blocks(drawn):
        kernel, bias = (np.concatenate(both, axis=-1) for both in _pairs(drawn, block, ""))
        if block.startswith("rise"):
            below = kernel.shape[2] - _skip_width(drawn, block)
            found[f"{block}_below"] = [kernel[:, :, :below]]
            found[f"{block}_skip"] = [kernel[:, :, below:]]
        else:
            found[f"{block}_both"] = [kernel]
        norm = [np.concatenate(both) for both in _pairs(drawn, block, "_norm")]
        found[f"{block}_both_norm"] = [*norm, bias]
        wide, wide_bias = drawn[f"{block}_wide"]
        found[f"{block}_wide"] = [wide]
        found[f"{block}_wide_norm"] = [*drawn[f"{block}_wide_norm"], wide_bias]
    return found


def to_drawn(lean: Weights) -> Weights:
    """The weights of the lean network, as the drawn one has them; the way back of `to_lean`."""
    found = {name: own for name, own in lean.items() if not name.endswith(JOINED)}
    for block in [name.removesuffix("_both_norm") for name in lean if name.endswith("_both_norm")]:
        if block.startswith("rise"):
            kernel = np.concatenate([*lean[f"{block}_below"], *lean[f"{block}_skip"]], axis=2)
        else:
            (kernel,) = lean[f"{block}_both"]
        *norm, bias = lean[f"{block}_both_norm"]
        halves = [np.split(own, 2, axis=-1) for own in (kernel, bias, *norm)]
        for half, (part, part_bias, *own) in zip(PAIR, zip(*halves, strict=True), strict=True):
            found[block + half] = [part, part_bias]
            found[f"{block}{half}_norm"] = own
        *norm, bias = lean[f"{block}_wide_norm"]
        found[f"{block}_wide"] = [*lean[f"{block}_wide"], bias]
        found[f"{block}_wide_norm"] = norm
    return found


def weights(model: keras.Model) -> Weights:
    """Weights by layer, for layers that have any."""
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def assign(model: keras.Model, values: Weights) -> None:
    """Put weights into a model whose layers have these names and shapes.

    Raises:
        KeyError, ValueError: they are of another network.
    """
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(values[layer.name])


def _blocks(drawn: Weights) -> list[str]:
    return [name.removesuffix("_narrow") for name in drawn if name.endswith("_narrow")]


def _pairs(drawn: Weights, block: str, part: str) -> Iterator[tuple[np.ndarray, ...]]:
    """Weights of main path and shortcut, two by two."""
    return zip(*(drawn[block + half + part] for half in PAIR), strict=True)


def _skip_width(drawn: Weights, block: str) -> int:
    """Channels that come from the encoder into a block of the decoder."""
    depth = int(block.removeprefix("rise_"))
    source = f"down_{depth}_wide" if depth else "open_2"
    return drawn[source][0].shape[-1]
