"""Facts about the ResUNet that its implementations share: layer names, constants, sizes.

`resunet` builds the network from Keras layers, `fused` computes it with less work for
training, and `adapters.model.openvino_graph` exports it. All three read this module. It
imports nothing but errors, so that prediction can start without Keras.

Layer names, each after a network's prefix: `open_1`, `open_2` (3x3 convolutions at full
resolution), `down_1` ... `down_3`, `bottom` (encoder), `rise_3` ... `rise_0` (decoder),
`probability` (1x1). A residual block `X` consists of `X_narrow` (1x1), `X_wide` (3x3) and
`X_short` (1x1 shortcut), each followed by its normalisation `..._norm`.
"""

import re
from collections.abc import Iterable

from pipeline.errors import GliaflowError

# Batch statistics are averaged over about ten steps, not Keras's hundred: an epoch of a few
# dozen steps would otherwise be validated with averages of the epochs before it.
MOMENTUM = 0.9
EPSILON = 1e-3  # of batch normalisation, as Keras's default
OPENING = ("open_1", "open_2")
BOTTOM = "bottom"
OUTPUT = "probability"
NARROW, WIDE, SHORT, NORM = "_narrow", "_wide", "_short", "_norm"
# Begins the layer names of refined networks. It is part of saved models: never change it.
REFINED = "finer"
DEFAULT_NAME = "resunet"


def network_prefixes(networks: int, *, refined: bool = False) -> list[str]:
    """Return the prefix of each network's layer names; empty for a single network.

    Args:
        networks: size of the ensemble.
        refined: each network is followed by its refinement at twice the image size.
    """
    if networks == 1 and not refined:
        return [""]
    kinds = ("network", REFINED) if refined else ("network",)
    return [f"{kind}_{number}_" for number in range(1, networks + 1) for kind in kinds]


def prefixes_in(layer_names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Find the networks in a model by its layer names.

    Returns:
        Prefixes of the networks at the base image size, and of the refined ones.
    """
    prefixes = [name.removesuffix(OUTPUT) for name in layer_names if name.endswith(OUTPUT)]
    refined = [prefix for prefix in prefixes if prefix.startswith(REFINED)]
    return [prefix for prefix in prefixes if prefix not in refined] or [""], refined


def encoder_blocks(layer_names: Iterable[str]) -> list[str]:
    """Return the residual blocks of the encoder of one network, from the top down."""
    pattern = re.compile(rf"(down_\d+){WIDE}")
    blocks = sorted(match[1] for name in layer_names if (match := pattern.fullmatch(name)))
    return [*blocks, BOTTOM]


def decoder_block(depth: int) -> str:
    """Name the residual block of the decoder at a depth; 0 is the full resolution."""
    return f"rise_{depth}"


def is_decoder_block(block: str) -> bool:
    return block.startswith("rise_")


def skip_source(block: str) -> str:
    """Name the convolution whose output channels a decoder block gets as skip connection."""
    depth = int(block.removeprefix("rise_"))
    return f"down_{depth}{WIDE}" if depth else OPENING[-1]


def downsampling_factor(*, image_size: int, height: int, width: int) -> int:
    """Return how many pixels of a slice, along each side, become one pixel of the network.

    Args:
        image_size: side of the network's input in pixels.
        height, width: of the slices in pixels.

    Raises:
        GliaflowError: the slices are not square or not multiples of 16, or `image_size` does
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


def refined_factor(factor: int) -> int:
    """Return the downsampling factor of a refined network, at twice the image size.

    Args:
        factor: `downsampling_factor` at the image size itself.

    Raises:
        GliaflowError: the factor is odd.
    """
    if factor % 2:
        raise GliaflowError(
            "train.refine works at twice train.image_size, which does not divide the slices: their "
            f"side is {factor} times train.image_size; expected an even number of times: "
            "halve train.image_size, or set train.refine.epochs to 0"
        )
    return factor // 2
