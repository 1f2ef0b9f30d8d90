"""The plain network, the ResUNet of the published system: uint8 slices in, probabilities out.

B slices, H x W pixels, 3 channels (pre-contrast, FLAIR, post-contrast). Standard Keras
layers only: a saved model loads wherever Keras is installed, without this project.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from pipeline.network import architecture
from pipeline.network.architecture import (
    EPSILON,
    MOMENTUM,
    NARROW,
    NORM,
    OUTPUT,
    REFINED,
    SHORT,
    WIDE,
)


def build(
    *,
    image_size: int,
    filters: Sequence[int],
    height: int,
    width: int,
    name: str = architecture.DEFAULT_NAME,
    networks: int = 1,
    refined: bool = False,
) -> keras.Model:
    """Build the model: one network, or an ensemble that averages several.

    Args:
        image_size: side in pixels of a network's input, a multiple of 16. Inside the model,
            larger slices are averaged down to it, and probabilities are enlarged again.
        filters: five widths, from the full resolution to the bottom. 16, 32, 64, 128, 256
            are the published ones: 1,210,513 parameters.
        height, width: size of the slices in pixels.
        name: of the model, saved with it.
        networks: size of the ensemble.
        refined: include a refinement of each network, which works at twice `image_size`.

    Returns:
        A model that maps (B, height, width, 3) uint8, 0 to 255, to (B, height, width, 1)
        float32 probability of tumour, in [0, 1].

    Raises:
        GliaflowError: see `architecture.downsampling_factor` and `refined_factor`.
    """
    factor = architecture.downsampling_factor(image_size=image_size, height=height, width=width)
    slices = keras.Input((height, width, 3), dtype="uint8", name="slices")
    x = layers.Rescaling(1 / 255, name="rescale")(slices)
    prefixes = architecture.network_prefixes(networks, refined=refined)
    if not refined:
        return keras.Model(slices, _mean(x, filters, prefixes, factor), name=name)
    small = _mean(x, filters, prefixes[::2], factor)
    large = _mean(
        x, filters, prefixes[1::2], architecture.refined_factor(factor), level=f"{REFINED}_"
    )
    return keras.Model(slices, layers.Average(name="both")([small, large]), name=name)


def _mean(
    x: Any, filters: Sequence[int], prefixes: Sequence[str], factor: int, level: str = ""
) -> Any:
    """Average the networks of one image size, at the size of the slices.

    Args:
        level: prefix of the layers around the networks.
    """
    if factor > 1:
        x = layers.AveragePooling2D(factor, name=f"{level}shrink")(x)
    outputs = [_probability(x, filters, prefix) for prefix in prefixes]
    x = outputs[0] if len(outputs) == 1 else layers.Average(name=f"{level}mean")(outputs)
    if factor > 1:
        x = layers.UpSampling2D(factor, interpolation="bilinear", name=f"{level}grow")(x)
    return x


def _probability(x: Any, filters: Sequence[int], prefix: str) -> Any:
    """Apply one network."""
    top, *down, bottom = filters
    x = _opening(x, top, prefix)
    skips = [x]
    for depth, width in enumerate(down, start=1):
        x = layers.MaxPooling2D(2, name=f"{prefix}pool_{depth}")(x)
        x = _residual_block(x, width, name=f"{prefix}down_{depth}")
        skips.append(x)
    x = layers.MaxPooling2D(2, name=f"{prefix}pool_bottom")(x)
    x = _residual_block(x, bottom, name=prefix + architecture.BOTTOM)
    for depth, (skip, width) in reversed(list(enumerate(zip(skips, [top, *down], strict=True)))):
        x = layers.UpSampling2D(2, interpolation="nearest", name=f"{prefix}up_{depth}")(x)
        x = layers.Concatenate(name=f"{prefix}join_{depth}")([x, skip])
        x = _residual_block(x, width, name=prefix + architecture.decoder_block(depth))
    return layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name=prefix + OUTPUT)(x)


def _opening(x: Any, width: int, prefix: str) -> Any:
    for layer in architecture.OPENING:
        name = prefix + layer
        x = _convolution(x, width, 3, name=name, activation="relu")
        x = _normalisation(name + NORM)(x)
    return x


def _residual_block(x: Any, width: int, *, name: str) -> Any:
    """Add a 1x1 and a 3x3 convolution to a 1x1 shortcut, each normalised; then apply ReLU."""
    main = _convolution(x, width, 1, name=name + NARROW)
    main = _normalisation(name + NARROW + NORM)(main)
    main = layers.Activation("relu", name=f"{name}_narrow_relu")(main)
    main = _convolution(main, width, 3, name=name + WIDE)
    main = _normalisation(name + WIDE + NORM)(main)
    short = _convolution(x, width, 1, name=name + SHORT)
    short = _normalisation(name + SHORT + NORM)(short)
    return layers.Activation("relu", name=f"{name}_relu")(
        layers.Add(name=f"{name}_add")([main, short])
    )


def _convolution(x: Any, width: int, side: int, *, name: str, activation: str | None = None) -> Any:
    return layers.Conv2D(
        width,
        side,
        padding="same",
        activation=activation,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _normalisation(name: str) -> layers.BatchNormalization:
    return layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)
