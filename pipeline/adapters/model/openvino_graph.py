"""Translate the plain network into an OpenVINO graph with fewer operations, for CPUs.

The graph computes the same function. Normalisations are folded into the convolutions in
front of them, and the 1x1 convolutions of the decoder run before their input is upsampled
(see `network.fused`). B slices, H x W pixels. Networks are recognised by their layer names
alone (see `network.architecture`).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.network import architecture
from pipeline.network.architecture import EPSILON, NARROW, NORM, OUTPUT, REFINED, SHORT, WIDE

if TYPE_CHECKING:
    import keras

Weights = Mapping[str, list[np.ndarray]]  # by layer name, in Keras's order


def build_graph(model: "keras.Model", *, batch: int) -> Any:
    """Build an OpenVINO model that maps (B, H, W, 3) uint8 to (B, 1, H, W) probabilities.

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
    base, refined = architecture.prefixes_in(weights)
    probabilities = [_ensemble(x, weights, base, _pooling(model, "shrink"))]
    if refined:
        factor = _pooling(model, f"{REFINED}_shrink")
        probabilities.append(_ensemble(x, weights, refined, factor))
    return ov.Model([op.result(_mean(probabilities))], [slices], model.name)


def _pooling(model: "keras.Model", name: str) -> int:
    """Return the factor by which a pooling layer shrinks slices; 1 if there is no such layer."""
    names = {layer.name for layer in model.layers}
    return int(model.get_layer(name).pool_size[0]) if name in names else 1


def _ensemble(x: Any, weights: Weights, prefixes: Sequence[str], factor: int) -> Any:
    """Average the networks of one image size; return probabilities at the size of the slices.

    Args:
        prefixes: of the networks' layer names.
        factor: pixels of a slice per pixel of the networks, along each side.
    """
    from openvino import opset13 as op

    if factor > 1:
        x = op.avg_pool(x, [factor] * 2, [0, 0], [0, 0], [factor] * 2, exclude_pad=True)
    x = _mean([_network(x, _weights_of(prefix, weights)) for prefix in prefixes])
    return _upsample(x, factor, mode="linear_onnx", by="half_pixel") if factor > 1 else x


def _weights_of(prefix: str, weights: Weights) -> Weights:
    """Select the weights of one network, with the prefix removed from the layer names."""
    return {
        name.removeprefix(prefix): values
        for name, values in weights.items()
        if name.startswith(prefix)
    }


def _mean(nodes: Sequence[Any]) -> Any:
    from openvino import opset13 as op

    total = nodes[0]
    for node in nodes[1:]:
        total = op.add(total, node)
    return total if len(nodes) == 1 else op.multiply(total, _constant(np.float32(1 / len(nodes))))


def _network(x: Any, weights: Weights) -> Any:
    """Compute probabilities of one network, at its image size."""
    from openvino import opset13 as op

    x = _opening(x, weights)
    skips = [x]
    for name in architecture.encoder_blocks(weights):
        x = _block(*_encoder_paths(_max_pool(x), weights, name), weights, name)
        skips.append(x)
    skips.pop()
    for depth, skip in reversed(list(enumerate(skips))):
        name = architecture.decoder_block(depth)
        x = _block(*_decoder_paths(x, skip, weights, name), weights, name)
    return op.sigmoid(_convolution(x, *weights[OUTPUT]))


def _opening(x: Any, weights: Weights) -> Any:
    """Apply the 3x3 convolutions at full resolution; ReLU keeps their norms from being folded."""
    from openvino import opset13 as op

    for name in architecture.OPENING:
        x = op.relu(_convolution(x, *weights[name]))
        gamma, beta, mean, variance = weights[name + NORM]
        gain = gamma / np.sqrt(variance + EPSILON)
        x = op.add(op.multiply(x, _by_channel(gain)), _by_channel(beta - mean * gain))
    return x


def _encoder_paths(x: Any, weights: Weights, name: str) -> tuple[Any, Any]:
    """Return main path and shortcut of an encoder block, after their 1x1 convolutions."""
    main, short = (_folded(weights, name + part) for part in (NARROW, SHORT))
    return _convolution(x, *main), _convolution(x, *short)


def _decoder_paths(below: Any, skip: Any, weights: Weights, name: str) -> tuple[Any, Any]:
    """Return main path and shortcut of a decoder block, after their 1x1 convolutions."""
    main, short = (_folded(weights, name + part) for part in (NARROW, SHORT))
    return _joined(below, skip, *main), _joined(below, skip, *short)


def _joined(below: Any, skip: Any, kernel: np.ndarray, bias: np.ndarray) -> Any:
    """Apply a 1x1 convolution to `below`, upsampled, and `skip` side by side.

    That is the sum of one convolution each. The one of `below` runs before upsampling.
    """
    from openvino import opset13 as op

    channels = kernel.shape[2] - skip.get_output_shape(0)[1]
    small = _convolution(below, kernel[:, :, :channels])
    large = _upsample(small, 2, mode="nearest", by="asymmetric")
    return op.add(_convolution(skip, kernel[:, :, channels:], bias), large)


def _block(main: Any, short: Any, weights: Weights, name: str) -> Any:
    """Complete a residual block from its main path and shortcut."""
    from openvino import opset13 as op

    wide = _convolution(op.relu(main), *_folded(weights, name + WIDE))
    return op.relu(op.add(wide, short))


def _folded(weights: Weights, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of a convolution with its normalisation folded in."""
    kernel, bias = weights[name]
    gamma, beta, mean, variance = weights[name + NORM]
    gain = gamma / np.sqrt(variance + EPSILON)
    return kernel * gain, (bias - mean) * gain + beta


def _convolution(x: Any, kernel: np.ndarray, bias: np.ndarray | None = None) -> Any:
    from openvino import opset13 as op

    pads = [kernel.shape[0] // 2] * 2
    kernel = kernel.transpose(3, 2, 0, 1)
    convolved = op.convolution(x, _constant(kernel), [1, 1], pads, pads, [1, 1])
    return convolved if bias is None else op.add(convolved, _by_channel(bias))


def _max_pool(x: Any) -> Any:
    from openvino import opset13 as op

    return op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)


def _upsample(x: Any, factor: int, *, mode: str, by: str) -> Any:
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
