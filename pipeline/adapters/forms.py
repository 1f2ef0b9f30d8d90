"""Ways to run one model on this machine: the fastest that gives the same masks.

Each form is compared with Keras in float32 on real slices before it is used, and timed; what
was found is kept beside the exported model, by machine. N slices of H x W pixels.
"""

import importlib.metadata
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.adapters import files, openvino_graph
from pipeline.domain import lineage
from pipeline.domain.views import Predictor
from pipeline.network import processor

if TYPE_CHECKING:
    import keras

KERAS = "Keras float32"
BATCH = 4  # slices at once: what lies between two layers then fits the processor's cache
MOST_DIFFERENT = 1e-4  # share of pixels whose masks may differ
ROUNDS = 3


@dataclass(frozen=True)
class Proof:
    """How a form did on the sample.

    different: share of pixels with another mask than Keras's. slices_per_second: on this machine.
    """

    form: str
    different: float
    slices_per_second: float
    sample_slices: int

    def holds(self, *, exact: bool) -> bool:
        return self.different <= (0 if exact else MOST_DIFFERENT)


@dataclass(frozen=True)
class Fastest:
    """The form in use.

    model_name: of the Keras model, which says how it wants its slices. shape: (H, W, 3) of one.
    """

    predict: Predictor
    proof: Proof
    model_name: str
    shape: tuple[int, ...]


def stored(folder: Path, *, exact: bool, load: Callable[[], "keras.Model"]) -> Fastest | None:
    """The form that was found on this machine before; None where none was.

    Args:
        load: brings the Keras model, for the case that it is the fastest; not called otherwise.
    """
    try:
        note = json.loads((folder / "proof.json").read_text(encoding="utf-8"))
        if note["machine"] != machine():
            return None
        proofs = [Proof(**one) for one in note["proofs"]]
        taken = best(proofs, exact=exact)
        is_keras = taken.form == KERAS
        predict = _keras(load()) if is_keras else compiled(folder / "model.xml", taken.form)
        return Fastest(predict, taken, note["model"], tuple(note["shape"]))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def prove(
    folder: Path, model: "keras.Model", sample: np.ndarray, *, threshold: float, exact: bool
) -> Fastest:
    """Export a model, compare and time every form, keep what was found, and take the fastest.

    Args:
        folder: of this model's exports; made anew.
        sample: (N, H, W, 3) uint8, brought to the scale that the model takes.
        threshold: cut of the masks, in (0, 1).
        exact: take only forms without a single different pixel.
    """
    reference = _keras(model)
    truth = reference(sample) >= threshold
    proofs = [Proof(KERAS, 0.0, _speed(reference, sample), len(sample))]
    predictors = {KERAS: reference}
    shutil.rmtree(folder, ignore_errors=True)
    for form, predict in _exported(folder, model):
        different = float(np.mean((predict(sample) >= threshold) != truth))
        proofs.append(Proof(form, different, _speed(predict, sample), len(sample)))
        predictors[form] = predict
    taken = best(proofs, exact=exact)
    shape = tuple(model.inputs[0].shape[1:])
    note = {"machine": machine(), "model": model.name, "shape": shape}
    files.write_json(folder / "proof.json", {**note, "proofs": [asdict(one) for one in proofs]})
    return Fastest(predictors[taken.form], taken, model.name, shape)


def machine() -> str:
    """Names what a form's speed and rounding depend on: the processor and OpenVINO."""
    known = {"cpu": sorted(processor.flags()), "openvino": _openvino_version()}
    return lineage.of_mapping(known)[:16]


def best(proofs: list[Proof], *, exact: bool) -> Proof:
    """The fastest of those that give the same masks; Keras always does."""
    return max(
        (proof for proof in proofs if proof.holds(exact=exact)),
        key=lambda proof: proof.slices_per_second,
    )


def _exported(folder: Path, model: "keras.Model") -> Iterator[tuple[str, Predictor]]:
    """Every form that this machine has, with what it is called."""
    if not _openvino_version():
        return
    try:
        save(model, folder / "model.xml")
    except (KeyError, RuntimeError) as error:  # another network than ours
        said = " ".join(str(error).split())[:200]
        print(f"OpenVINO does not take this model ({said}); Keras predicts", file=sys.stderr)
        return
    forms = [
        "OpenVINO float32",
        *(["OpenVINO bfloat16"] if processor.multiplies_bfloat16() else []),
    ]
    for form in forms:
        yield form, compiled(folder / "model.xml", form)


def save(model: "keras.Model", path: Path) -> None:
    """Export the drawn network for OpenVINO, all weights in float32.

    Raises:
        KeyError, RuntimeError: it is another network.
    """
    import openvino as ov

    graph = openvino_graph.make(model, batch=BATCH)
    path.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(graph, path, compress_to_fp16=False)


def steady(model: "keras.Model") -> Predictor:
    """The way that scores are measured by: float32, the same to the last bit each time.

    OpenVINO where it is there and takes the model, some twice as fast on a CPU; else, or where
    there is a GPU, Keras.
    """
    from pipeline.network import backend

    if _openvino_version() and not backend.has_gpu():
        try:
            return compiled(openvino_graph.make(model, batch=BATCH), "OpenVINO float32")
        except (KeyError, RuntimeError):  # another network than ours
            pass
    return _keras(model)


def compiled(graph: Any, form: str) -> Predictor:
    """A graph, or the path of a saved one, ready to predict in the form's precision."""
    import openvino as ov

    precision = "bf16" if form.endswith("bfloat16") else "f32"
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(graph, "CPU", options).create_infer_request()

    def predict(images: np.ndarray) -> np.ndarray:
        found = np.empty(images.shape[:3], np.float32)
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            filled = np.zeros((BATCH, *images.shape[1:]), np.uint8)
            filled[: len(part)] = part
            request.infer([filled])
            found[start : start + len(part)] = request.get_output_tensor().data[: len(part), 0]
        return found

    return predict


def _keras(model: "keras.Model") -> Predictor:
    from pipeline.network import inference

    return lambda images: inference.probabilities(model, images, batch=inference.BATCH)


def _speed(predict: Predictor, sample: np.ndarray) -> float:
    """Slices a second: the median of a few rounds, after one that warms up."""
    seconds = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        predict(sample)
        seconds.append(time.perf_counter() - began)
    return round(len(sample) / float(np.median(seconds[1:])), 2)


def _openvino_version() -> str:
    if importlib.util.find_spec("openvino") is None:
        return ""
    return importlib.metadata.version("openvino")


def sample_of(scans: list[np.ndarray], most: int = 32) -> np.ndarray:
    """Slices spread evenly over scans of one size: (N, H, W, 3), N at most `most`."""
    every = np.concatenate(scans)
    return every[np.unique(np.linspace(0, len(every) - 1, min(most, len(every))).astype(int))]
