"""The least that a training step has to do: what it multiplies and what it moves.

Plain arithmetic from the shapes of layers. Does not know devices beyond the two rates that
their maker states. A value is a number of an image inside the network, whatever its bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

PASSES = 3  # forward, and twice as much backward: by weights and by inputs
FORGOTTEN = {"InputLayer", "Rescaling"}  # no gradient goes through them
# Adam reads and writes each parameter and its two averages, of four bytes.
ADAM_BYTES = 6 * 4


@dataclass(frozen=True)
class Layer:
    """What a layer does to one slice.

    inputs, outputs: values it reads and writes. multiply_adds: by its kernel, 0 without one.
    """

    inputs: int
    outputs: int
    multiply_adds: int


@dataclass(frozen=True)
class Card:
    """What its maker states. bytes_a_second: of its memory. flops: dense, a second, by precision;
    that of float32 is by tensor cores, which round factors to ten bits (TF32).
    """

    bytes_a_second: float
    flops: dict[str, float]


@dataclass(frozen=True)
class Floor:
    """Of one training step.

    flops: a multiply-add is two. least_bytes: what convolutions alone read and write, as if all
    else were done on the way. layered_bytes: what all layers do, each by itself.
    """

    flops: int
    least_bytes: int
    layered_bytes: int


SXM = {"bfloat16": 989e12, "float32": 494.5e12}
CARDS = {"H100": Card(3.35e12, SXM), "H200": Card(4.8e12, SXM)}
SLOWER = ("PCIe", "NVL")  # cards of the same name and other rates


def card(name: str) -> Card | None:
    """The card of a name such as `NVIDIA H100 80GB HBM3`; None where it is not known."""
    if any(word in name for word in SLOWER):
        return None
    return next((own for short, own in CARDS.items() if short in name), None)


def convolution(*, side: int, channels: int, width: int, kernel: int) -> Layer:
    """A convolution of `side` x `side` x `channels` to `width` channels, of the same size."""
    pixels = side * side
    return Layer(pixels * channels, pixels * width, pixels * channels * width * kernel * kernel)


def layers_of(model: Any) -> list[Layer]:
    """The layers of a Keras model through which a gradient goes, in its order."""
    return [_layer(own) for own in model.layers if type(own).__name__ not in FORGOTTEN]


def of_step(layers: Sequence[Layer], *, batch: int, value_bytes: int, parameters: int = 0) -> Floor:
    """What a training step of `batch` slices does at least.

    Forward, a layer reads its inputs and writes its outputs, once. Backward, it reads the
    gradient of its outputs and its inputs again, and writes the gradient of its inputs. So
    inputs count three times, outputs twice. To this comes Adam's reading and writing.

    Args:
        value_bytes: of a value: 4 for float32, 2 for bfloat16.
        parameters: that are trained.
    """
    own = parameters * ADAM_BYTES
    return Floor(
        flops=2 * PASSES * batch * sum(one.multiply_adds for one in layers),
        least_bytes=own + batch * value_bytes * _moved([o for o in layers if o.multiply_adds]),
        layered_bytes=own + batch * value_bytes * _moved(layers),
    )


def least_seconds(floor: Floor, card: Card, precision: str) -> float:
    """The shortest that a step can take on a card: the longer of moving and multiplying."""
    return max(floor.least_bytes / card.bytes_a_second, floor.flops / card.flops[precision])


def reached(floor: Floor, seconds: float, card: Card | None, precision: str) -> dict[str, float]:
    """Rates of a step that took so long, and where the card is known shares of its peaks."""
    moved = {"least": floor.least_bytes, "layered": floor.layered_bytes}
    found = {f"gb_per_second_{name}": own / seconds / 1e9 for name, own in moved.items()}
    found["tflop_per_second"] = floor.flops / seconds / 1e12
    if card is None:
        return found
    for name, own in moved.items():
        found[f"share_of_bandwidth_{name}"] = own / seconds / card.bytes_a_second
    found["share_of_matrix_rate"] = floor.flops / seconds / card.flops[precision]
    found["share_of_floor"] = least_seconds(floor, card, precision) / seconds
    return found


def _moved(layers: Sequence[Layer]) -> int:
    return sum(3 * one.inputs + 2 * one.outputs for one in layers)


def _layer(layer: Any) -> Layer:
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    read, written = (sum(prod(o.shape[1:]) for o in part) for part in (inputs, [layer.output]))
    if not hasattr(layer, "kernel"):
        return Layer(read, written, 0)
    pixels = prod(layer.output.shape[1:-1])
    return Layer(read, written, pixels * prod(layer.kernel.shape))
