"""The least work of a training step: what it must multiply and move.

Plain arithmetic on the shapes of layers. Of a device it knows only the two peak rates that
its maker states. A value is one number of an image inside the network, of any size in bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

PASSES = 3  # forward, and twice as much backward: by weights and by inputs
WITHOUT_GRADIENT = {"InputLayer", "Rescaling"}  # layers that no gradient goes through
# Adam reads and writes each parameter and its two averages, of four bytes.
ADAM_BYTES = 6 * 4


@dataclass(frozen=True)
class Layer:
    """Work of a layer on one slice.

    inputs, outputs: values that it reads and writes. multiply_adds: of its kernel; 0 without one.
    """

    inputs: int
    outputs: int
    multiply_adds: int


@dataclass(frozen=True)
class Card:
    """Peak rates of a graphics card, as its maker states them.

    bytes_a_second: of its memory. flops: dense, per second, by precision. That of float32 is by
    tensor cores, which round factors to ten bits (TF32).
    """

    bytes_a_second: float
    flops: dict[str, float]


@dataclass(frozen=True)
class Floor:
    """The least work of one training step.

    flops: a multiply-add counts as two. least_bytes: read and written by convolutions alone, as
    if everything else were fused into them. layered_bytes: by all layers, each run by itself.
    """

    flops: int
    least_bytes: int
    layered_bytes: int


SXM = {"bfloat16": 989e12, "float32": 494.5e12}
CARDS = {"H100": Card(3.35e12, SXM), "H200": Card(4.8e12, SXM)}
OTHER_RATES = ("PCIe", "NVL")  # variants of these cards with other rates


def card(name: str) -> Card | None:
    """Find a card by a name such as `NVIDIA H100 80GB HBM3`; None if its rates are unknown."""
    if any(word in name for word in OTHER_RATES):
        return None
    return next((known for short, known in CARDS.items() if short in name), None)


def convolution(*, side: int, channels: int, width: int, kernel: int) -> Layer:
    """Return the work of a convolution on `side` x `side` x `channels` values, same padding.

    Args:
        width: channels of its output.
        kernel: side of its window, in pixels.
    """
    pixels = side * side
    return Layer(pixels * channels, pixels * width, pixels * channels * width * kernel * kernel)


def layers_of(model: Any) -> list[Layer]:
    """Return the layers of a Keras model that a gradient goes through, in the model's order."""
    return [_layer(layer) for layer in model.layers if type(layer).__name__ not in WITHOUT_GRADIENT]


def of_step(layers: Sequence[Layer], *, batch: int, value_bytes: int, parameters: int = 0) -> Floor:
    """Return the least work of a training step on `batch` slices.

    Forward, a layer reads its inputs and writes its outputs, once. Backward, it reads the
    gradient of its outputs and its inputs again, and writes the gradient of its inputs. So
    inputs count three times and outputs twice. Adam's reads and writes are added.

    Args:
        value_bytes: size of a value: 4 for float32, 2 for bfloat16.
        parameters: number of trained parameters.
    """
    adam = parameters * ADAM_BYTES
    convolutions = [layer for layer in layers if layer.multiply_adds]
    return Floor(
        flops=2 * PASSES * batch * sum(layer.multiply_adds for layer in layers),
        least_bytes=adam + batch * value_bytes * _moved_values(convolutions),
        layered_bytes=adam + batch * value_bytes * _moved_values(layers),
    )


def least_seconds(floor: Floor, card: Card, precision: str) -> float:
    """Return the shortest time of a step on a card: the longer of moving and multiplying."""
    return max(floor.least_bytes / card.bytes_a_second, floor.flops / card.flops[precision])


def reached(floor: Floor, seconds: float, card: Card | None, precision: str) -> dict[str, float]:
    """Return the rates of a step that took `seconds`, and shares of the peaks of a known card."""
    moved = {"least": floor.least_bytes, "layered": floor.layered_bytes}
    rates = {f"gb_per_second_{name}": count / seconds / 1e9 for name, count in moved.items()}
    rates["tflop_per_second"] = floor.flops / seconds / 1e12
    if card is None:
        return rates
    for name, count in moved.items():
        rates[f"share_of_bandwidth_{name}"] = count / seconds / card.bytes_a_second
    rates["share_of_matrix_rate"] = floor.flops / seconds / card.flops[precision]
    rates["share_of_floor"] = least_seconds(floor, card, precision) / seconds
    return rates


def _moved_values(layers: Sequence[Layer]) -> int:
    return sum(3 * layer.inputs + 2 * layer.outputs for layer in layers)


def _layer(layer: Any) -> Layer:
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    read, written = (
        sum(prod(tensor.shape[1:]) for tensor in tensors) for tensors in (inputs, [layer.output])
    )
    if not hasattr(layer, "kernel"):
        return Layer(read, written, 0)
    pixels = prod(layer.output.shape[1:-1])
    return Layer(read, written, pixels * prod(layer.kernel.shape))
