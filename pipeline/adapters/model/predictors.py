"""Functions that predict with a model: OpenVINO on a CPU, Keras elsewhere.

N slices of H x W pixels.
"""

import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.adapters.model import openvino_graph
from pipeline.domain.test_time_augmentation import Predictor

if TYPE_CHECKING:
    import keras

OPENVINO, OPENVINO_BFLOAT16 = "OpenVINO float32", "OpenVINO bfloat16"
BATCH = 4  # slices at once: activations between two layers then fit the processor's cache


def reference_predictor(model: "keras.Model") -> Predictor:
    """Return the predictor that scores are measured with: float32, identical bits in each run.

    OpenVINO if it is installed and accepts the model: on a CPU about twice as fast. Otherwise,
    and on a machine with a GPU, Keras.
    """
    from pipeline.network import backend

    if openvino_version() and not backend.has_gpu():
        try:
            return compile_graph(openvino_graph.build_graph(model, batch=BATCH), OPENVINO)
        except (KeyError, RuntimeError):  # a network that this project did not build
            pass
    return keras_predictor(model)


def compile_graph(graph: Any, runtime: str) -> Predictor:
    """Compile a graph, or a saved one, for the precision of an OpenVINO runtime.

    Args:
        graph: OpenVINO model with a batch of `BATCH`, or the path of one.
        runtime: its name, which ends with the precision.
    """
    import openvino as ov

    precision = "bf16" if runtime.endswith("bfloat16") else "f32"
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(graph, "CPU", options).create_infer_request()

    def predict(images: np.ndarray) -> np.ndarray:
        probability = np.empty(images.shape[:3], np.float32)
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            padded = np.zeros((BATCH, *images.shape[1:]), np.uint8)
            padded[: len(part)] = part
            request.infer([padded])
            output = request.get_output_tensor().data
            probability[start : start + len(part)] = output[: len(part), 0]
        return probability

    return predict


def keras_predictor(model: "keras.Model") -> Predictor:
    """Return the predictor that calls the Keras model itself."""
    from pipeline.network import inference

    return lambda images: inference.probabilities(model, images, batch=inference.BATCH)


def openvino_version() -> str:
    """Return the version of OpenVINO; empty if it is not installed."""
    if importlib.util.find_spec("openvino") is None:
        return ""
    return importlib.metadata.version("openvino")
