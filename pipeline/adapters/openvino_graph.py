"""The drawn network as an OpenVINO graph, with less work, for predicting on a CPU.

The same function: normalisations are folded into the convolutions in front of them, and the
1x1 convolutions of the decoder run before their input is repeated (see `network.lean`).
B slices, H x W pixels. Knows the network by the names of its layers alone.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

EPSILON = 1e-3  # Keras's own
FINER = "finer"  # begins the names of what works at twice the size
Weights = Mapping[str, list[np.ndarray]]


def make(model: "keras.Model", *, batch: int) -> Any:
    """An OpenVINO model that maps (B, H, W, 3) uint8 to (B, 1, H, W) probabilities.

    Args:
        model: of `resunet.build`.
        batch: B, fixed.

    Raises:
        KeyError: the layers are those of another network.
    """
    import openvino as ov
    from openvino import opset13 as op

    weights = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    height, width = model.inputs[0].shape[1:3]
    slices = op.parameter([batch, height, width, 3], ov.Type.u8)
    channels_first = op.transpose(slices, op.constant(np.array([0, 3, 1, 2])))
    x = op.multiply(op.convert(channels_first, ov.Type.f32), _constant(np.float32(1 / 255)))
    last = "probability"
    prefixes = [name.removesuffix(last) for name in weights if name.endswith(last)] or [""]
    finer = [one for one in prefixes if one.startswith(FINER)]
    coarse = [one for one in prefixes if one not in finer]
    found = [_grown(x, weights, coarse, _factor(model, "shrink"))]
    if finer:
        found.append(_grown(x, weights, finer, _factor(model, f"{FINER}_shrink")))
    return ov.Model([op.result(_mean(found))], [slices], model.name)


def _factor(model: "keras.Model", name: str) -> int:
    names = {layer.name for layer in model.layers}
    return int(model.get_layer(name).pool_size[0]) if name in names else 1


def _grown(x: Any, weights: Weights, prefixes: list[str], factor: int) -> Any:
    """What the networks of one size say on the whole, at the size of the slices."""
    from openvino import opset13 as op

    if factor > 1:
        x = op.avg_pool(x, [factor] * 2, [0, 0], [0, 0], [factor] * 2, exclude_pad=True)
    x = _mean([_probability(x, _without(one, weights)) for one in prefixes])
    return _resized(x, factor, mode="linear_onnx", by="half_pixel") if factor > 1 else x


def _without(prefix: str, weights: Weights) -> Weights:
    """The weights of one network, under the names that they have alone."""
    return {
        name.removeprefix(prefix): own for name, own in weights.items() if name.startswith(prefix)
    }


def _mean(found: list[Any]) -> Any:
    from openvino import opset13 as op

    total = found[0]
    for other in found[1:]:
        total = op.add(total, other)
    return total if len(found) == 1 else op.multiply(total, _constant(np.float32(1 / len(found))))


def _probability(x: Any, weights: Weights) -> Any:
    from openvino import opset13 as op

    x = _opening(x, weights)
    skips = [x]
    downward = sorted(name[:-5] for name in weights if re.fullmatch(r"down_\d+_wide", name))
    for name in [*downward, "bottom"]:
        x = _block(*_both(_halved(x), weights, name), weights, name)
        skips.append(x)
    skips.pop()
    for depth, skip in reversed(list(enumerate(skips))):
        name = f"rise_{depth}"
        x = _block(*_joined(x, skip, weights, name), weights, name)
    return op.sigmoid(_convolution(x, *weights["probability"]))


def _opening(x: Any, weights: Weights) -> Any:
    from openvino import opset13 as op

    for name in ("open_1", "open_2"):
        x = op.relu(_convolution(x, *weights[name]))
        gamma, beta, mean, variance = weights[f"{name}_norm"]
        gain = gamma / np.sqrt(variance + EPSILON)
        x = op.add(op.multiply(x, _by_channel(gain)), _by_channel(beta - mean * gain))
    return x


def _both(x: Any, weights: Weights, name: str) -> list[Any]:
    """Main path and shortcut of a block, after their 1x1 convolutions."""
    return [_convolution(x, *_folded(weights, f"{name}_{part}")) for part in ("narrow", "short")]


def _joined(below: Any, skip: Any, weights: Weights, name: str) -> list[Any]:
    """The same over `below`, repeated to the size of `skip`, beside `skip`."""
    from openvino import opset13 as op

    found = []
    for part in ("narrow", "short"):
        kernel, bias = _folded(weights, f"{name}_{part}")
        cut = kernel.shape[2] - skip.get_output_shape(0)[1]
        grown = _resized(
            _convolution(below, kernel[:, :, :cut]), 2, mode="nearest", by="asymmetric"
        )
        found.append(op.add(_convolution(skip, kernel[:, :, cut:], bias), grown))
    return found


def _block(main: Any, short: Any, weights: Weights, name: str) -> Any:
    from openvino import opset13 as op

    wide = _convolution(op.relu(main), *_folded(weights, f"{name}_wide"))
    return op.relu(op.add(wide, short))


def _folded(weights: Weights, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution with its normalisation folded in."""
    kernel, bias = weights[name]
    gamma, beta, mean, variance = weights[f"{name}_norm"]
    gain = gamma / np.sqrt(variance + EPSILON)
    return kernel * gain, (bias - mean) * gain + beta


def _convolution(x: Any, kernel: np.ndarray, bias: np.ndarray | None = None) -> Any:
    from openvino import opset13 as op

    pads = [kernel.shape[0] // 2] * 2
    found = op.convolution(x, _constant(kernel.transpose(3, 2, 0, 1)), [1, 1], pads, pads, [1, 1])
    return found if bias is None else op.add(found, _by_channel(bias))


def _halved(x: Any) -> Any:
    from openvino import opset13 as op

    return op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)


def _resized(x: Any, factor: int, *, mode: str, by: str) -> Any:
    from openvino import opset13 as op

    scales = op.constant(np.array([factor, factor], np.float32))
    axes = op.constant(np.array([2, 3]))
    return op.interpolate(
        x, scales, mode, "scales", axes=axes, coordinate_transformation_mode=by,
        nearest_mode="floor",
    )  # fmt: skip


def _by_channel(values: np.ndarray) -> Any:
    return _constant(values[None, :, None, None])


def _constant(values: np.ndarray | np.floating) -> Any:
    from openvino import opset13 as op

    return op.constant(np.ascontiguousarray(values, np.float32))
