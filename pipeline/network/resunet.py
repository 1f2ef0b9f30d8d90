"""The ResUNet of the published system: raw uint8 slices in, probabilities out.

B slices, H x W pixels, 3 channels (pre-contrast, FLAIR, post-contrast). Standard Keras
layers alone, so that a saved model loads wherever Keras is, without this project.
"""

from collections.abc import Sequence

import keras
from keras import layers

from pipeline.errors import GliaflowError

# Batch statistics are averaged over some ten steps rather than Keras's hundred: an epoch of
# a few dozen steps would otherwise be judged by averages of the epochs before it.
MOMENTUM = 0.9

FINER = "finer"  # begins the names of what works at twice the size


def build(
    *,
    image_size: int,
    filters: Sequence[int],
    height: int,
    width: int,
    name: str = "resunet",
    networks: int = 1,
    finer: bool = False,
) -> keras.Model:
    """Draw the network.

    Args:
        image_size: side in pixels, a multiple of 16, of what the network itself works on.
            Larger slices are averaged down on the way in and probabilities brought back to
            their size on the way out, both inside the model.
        filters: five widths, from the full resolution to the bottom. 16, 32, 64, 128, 256
            are the published ones: 1,210,513 parameters.
        height, width: size in pixels of the slices that come in.
        name: goes with the model into its file.
        networks: how many of these networks the model asks; it gives their mean.
        finer: beside each of them asks one that works at twice `image_size`.

    Returns:
        A model that maps (B, height, width, 3) uint8, 0 to 255, to (B, height, width, 1)
        float32 probability of tumour, in [0, 1].

    Raises:
        GliaflowError: see `shrink_factor` and `finer_factor`.
    """
    factor = shrink_factor(image_size=image_size, height=height, width=width)
    slices = keras.Input((height, width, 3), dtype="uint8", name="slices")
    x = layers.Rescaling(1 / 255, name="rescale")(slices)
    own = prefixes(networks, finer=finer)
    if not finer:
        return keras.Model(slices, _mean(x, filters, own, factor), name=name)
    small = _mean(x, filters, own[::2], factor)
    large = _mean(x, filters, own[1::2], finer_factor(factor), of=f"{FINER}_")
    return keras.Model(slices, layers.Average(name="both")([small, large]), name=name)


def prefixes(networks: int, *, finer: bool = False) -> list[str]:
    """What the names of each network's layers begin with: nothing where it is the only one.

    Args:
        finer: each is followed by the one that works at twice its size.
    """
    if networks == 1 and not finer:
        return [""]
    sizes = ("network", FINER) if finer else ("network",)
    return [f"{size}_{number}_" for number in range(1, networks + 1) for size in sizes]


def shrink_factor(*, image_size: int, height: int, width: int) -> int:
    """How many pixels of a slice make one of the network's, along each side.

    Raises:
        GliaflowError: the slices are not square, or no multiples of 16, or `image_size` does
            not divide them.
    """
    if height != width or height % 16:
        raise GliaflowError(
            f"the slices are {height}x{width} px; expected square ones whose side is a multiple of "
            "16: pad or crop them, and set validate.height_px and width_px"
        )
    if height % image_size or image_size % 16:
        fitting = [side for side in range(16, height + 1, 16) if height % side == 0]
        raise GliaflowError(
            f"train.image_size is {image_size} and the slices are {height}x{width} px; "
            f"expected a size that divides theirs: set one of {fitting}"
        )
    return height // image_size


def finer_factor(factor: int) -> int:
    """The same as `shrink_factor` at twice the size, from that at the size itself.

    Raises:
        GliaflowError: slices that are made smaller by an odd factor, or not at all.
    """
    if factor % 2:
        raise GliaflowError(
            f"train.finer works at twice train.image_size, and that does not divide the slices, "
            f"whose side is {factor} times train.image_size; expected an even number of times: "
            "halve train.image_size, or set train.finer.epochs to 0"
        )
    return factor // 2


def _mean(x, filters: Sequence[int], own: Sequence[str], factor: int, of: str = ""):
    """What the networks of one size say on the whole, at the size of the slices."""
    if factor > 1:
        x = layers.AveragePooling2D(factor, name=f"{of}shrink")(x)
    found = [_probability(x, filters, prefix) for prefix in own]
    x = found[0] if len(found) == 1 else layers.Average(name=f"{of}mean")(found)
    if factor > 1:
        x = layers.UpSampling2D(factor, interpolation="bilinear", name=f"{of}grow")(x)
    return x


def _probability(x, filters: Sequence[int], prefix: str):
    top, *down, bottom = filters
    x = _opening(x, top, prefix)
    skips = [x]
    for depth, width in enumerate(down, start=1):
        x = layers.MaxPooling2D(2, name=f"{prefix}pool_{depth}")(x)
        x = _residual_block(x, width, name=f"{prefix}down_{depth}")
        skips.append(x)
    x = layers.MaxPooling2D(2, name=f"{prefix}pool_bottom")(x)
    x = _residual_block(x, bottom, name=f"{prefix}bottom")
    for depth, (skip, width) in reversed(list(enumerate(zip(skips, [top, *down], strict=True)))):
        x = layers.UpSampling2D(2, interpolation="nearest", name=f"{prefix}up_{depth}")(x)
        x = layers.Concatenate(name=f"{prefix}join_{depth}")([x, skip])
        x = _residual_block(x, width, name=f"{prefix}rise_{depth}")
    return layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name=f"{prefix}probability")(
        x
    )


def _opening(x, width: int, prefix: str):
    for step in (1, 2):
        name = f"{prefix}open_{step}"
        x = _convolution(x, width, 3, name=name, activation="relu")
        x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm")(x)
    return x


def _residual_block(x, width: int, *, name: str):
    """1x1 and 3x3 convolutions beside a 1x1 shortcut, each normalised, added, cut at zero."""
    main = _convolution(x, width, 1, name=f"{name}_narrow")
    main = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_narrow_norm")(main)
    main = layers.Activation("relu", name=f"{name}_narrow_relu")(main)
    main = _convolution(main, width, 3, name=f"{name}_wide")
    main = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_wide_norm")(main)
    short = _convolution(x, width, 1, name=f"{name}_short")
    short = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_short_norm")(short)
    return layers.Activation("relu", name=f"{name}_relu")(
        layers.Add(name=f"{name}_add")([main, short])
    )


def _convolution(x, width: int, side: int, *, name: str, activation: str | None = None):
    return layers.Conv2D(
        width,
        side,
        padding="same",
        activation=activation,
        kernel_initializer="he_normal",
        name=name,
    )(x)
