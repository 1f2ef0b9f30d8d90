"""Runtimes of one model on this machine; selects the fastest that gives the same masks.

Models are judged with one runtime: OpenVINO in float32, or Keras on a machine with a GPU. Every
other is compared with it on real slices, and timed, before it is used.
The results are cached beside the exported model, for this machine. N slices of H x W pixels.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.adapters.model import openvino_graph, predictors
from pipeline.adapters.model.predictors import OPENVINO, OPENVINO_BFLOAT16
from pipeline.adapters.storage import files, json_files
from pipeline.domain import lineage
from pipeline.domain.test_time_augmentation import Predictor
from pipeline.network import processor

if TYPE_CHECKING:
    import keras

KERAS = "Keras float32"
CACHE_FILE, GRAPH_FILE = "runtimes.json", "model.xml"
MAX_DIFFERING_SHARE = 1e-4  # share of pixels whose masks may differ
ROUNDS = 3


@dataclass(frozen=True)
class Comparison:
    """How a runtime compares with the one that models are judged with, on a sample of slices.

    runtime: its name. differing_share: share of pixels whose mask differs from the judged one,
    in [0, 1]. slices_per_second: on this machine. sample_slices: size of the sample.
    """

    runtime: str
    differing_share: float
    slices_per_second: float
    sample_slices: int

    @property
    def is_accurate(self) -> bool:
        """Whether the masks are close enough to those that the model was judged by."""
        return self.differing_share <= MAX_DIFFERING_SHARE


@dataclass(frozen=True)
class Runtime:
    """A runtime that is ready to predict.

    model_name: of the Keras model; it tells how slices must be scaled. shape: (H, W, 3) of a
    slice.
    """

    predict: Predictor
    comparison: Comparison
    model_name: str
    shape: tuple[int, ...]


def load_cached(folder: Path, *, exact: bool, load: Callable[[], "keras.Model"]) -> Runtime | None:
    """Load the runtime that was selected on this machine before.

    Args:
        folder: as in `select`.
        exact: as in `select`.
        load: returns the Keras model; called only if Keras is the fastest.

    Returns:
        None if nothing is cached, the cache is of another machine or damaged, or an exported
        file was changed: its masks would no longer be those that were compared.
    """
    try:
        cache = json.loads((folder / CACHE_FILE).read_text(encoding="utf-8"))
        if cache["machine"] != machine_key() or cache["files"] != _export_digests(folder):
            return None
        comparison = fastest([Comparison(**row) for row in cache["comparisons"]], exact=exact)
        is_keras = comparison.runtime == KERAS
        predict = (
            predictors.keras_predictor(load())
            if is_keras
            else predictors.compile_graph(folder / GRAPH_FILE, comparison.runtime)
        )
        return Runtime(predict, comparison, cache["model"], tuple(cache["shape"]))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def select(
    folder: Path, model: "keras.Model", sample: np.ndarray, *, threshold: float, exact: bool
) -> Runtime:
    """Export a model, compare and time every runtime, cache the results, return the fastest.

    Args:
        folder: for the exports of this model; replaced.
        sample: (N, H, W, 3) uint8, scaled as the model expects.
        threshold: of the masks, in (0, 1).
        exact: return the runtime that models are judged with.
    """
    shutil.rmtree(folder, ignore_errors=True)
    candidates = _candidates(folder, model)
    truth = next(iter(candidates.values()))(sample) >= threshold
    comparisons = [
        Comparison(
            name,
            float(np.mean((predict(sample) >= threshold) != truth)),
            _speed(predict, sample),
            len(sample),
        )
        for name, predict in candidates.items()
    ]
    shape = tuple(model.inputs[0].shape[1:])
    _write_cache(folder / CACHE_FILE, comparisons, model_name=model.name, shape=shape)
    best = fastest(comparisons, exact=exact)
    return Runtime(candidates[best.runtime], best, model.name, shape)


def _candidates(folder: Path, model: "keras.Model") -> dict[str, Predictor]:
    """Return the predictor of every runtime by name; models are judged with the first."""
    exported = dict(_exported(folder, model))
    keras_alone = {KERAS: predictors.keras_predictor(model)}
    from pipeline.network import backend

    return keras_alone | exported if backend.has_gpu() else exported | keras_alone


def machine_key() -> str:
    """Name what a runtime's speed and rounding depend on: the processor and OpenVINO."""
    parts = {"cpu": sorted(processor.flags()), "openvino": predictors.openvino_version()}
    return lineage.digest_of_mapping(parts)[:16]


def fastest(comparisons: Sequence[Comparison], *, exact: bool) -> Comparison:
    """Return the fastest runtime that is accurate.

    Args:
        comparisons: the first is the runtime that models are judged with.
        exact: return that one.
    """
    if exact:
        return comparisons[0]
    return max(
        (comparison for comparison in comparisons if comparison.is_accurate),
        key=lambda comparison: comparison.slices_per_second,
    )


def _write_cache(
    path: Path, comparisons: Sequence[Comparison], *, model_name: str, shape: tuple[int, ...]
) -> None:
    rows = [asdict(comparison) for comparison in comparisons]
    json_files.write_json(
        path,
        {
            "machine": machine_key(),
            "model": model_name,
            "shape": shape,
            "comparisons": rows,
            "files": _export_digests(path.parent),
        },
    )


def _export_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every exported file, by name."""
    return {
        path.name: files.sha256(path)
        for path in sorted(folder.glob("*"))
        if path.is_file() and path.name != CACHE_FILE
    }


def _exported(folder: Path, model: "keras.Model") -> Iterator[tuple[str, Predictor]]:
    """Yield name and predictor of every runtime that this machine has beside Keras."""
    if not predictors.openvino_version():
        return
    try:
        export(model, folder / GRAPH_FILE)
    except (KeyError, RuntimeError) as error:  # a network that this project did not build
        reason = " ".join(str(error).split())[:200]
        print(f"OpenVINO does not take this model ({reason}); Keras predicts", file=sys.stderr)
        return
    yield OPENVINO, predictors.compile_graph(folder / GRAPH_FILE, OPENVINO)
    if processor.multiplies_bfloat16():
        yield OPENVINO_BFLOAT16, predictors.compile_graph(folder / GRAPH_FILE, OPENVINO_BFLOAT16)


def export(model: "keras.Model", path: Path) -> None:
    """Export the plain network for OpenVINO, all weights in float32.

    Raises:
        KeyError, RuntimeError: it is another network.
    """
    import openvino as ov

    graph = openvino_graph.build_graph(model, batch=predictors.BATCH)
    path.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(graph, path, compress_to_fp16=False)


def _speed(predict: Predictor, sample: np.ndarray) -> float:
    """Measure slices per second: the median of a few rounds after a warm-up."""
    seconds = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        predict(sample)
        seconds.append(time.perf_counter() - start)
    return round(len(sample) / float(np.median(seconds[1:])), 2)


def sample_slices(scans: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """Pick slices spread evenly over scans of one size: (N, H, W, 3), N at most `limit`."""
    slices = np.concatenate(scans)
    positions = np.linspace(0, len(slices) - 1, min(limit, len(slices))).astype(int)
    sample: np.ndarray = slices[np.unique(positions)]
    return sample
