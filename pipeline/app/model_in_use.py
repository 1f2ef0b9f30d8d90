"""The model that `gliaflow predict` uses, and how it runs on this machine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.model import model_files, runtimes, scan_model
from pipeline.adapters.process import native_logs
from pipeline.adapters.storage import files
from pipeline.app import scans_to_predict
from pipeline.app.open_registry import open_registry
from pipeline.app.scans_to_predict import ReadPatient
from pipeline.domain import intensity
from pipeline.domain.postprocessing import PostProcessing
from pipeline.errors import GliaflowError

SAMPLE_SLICES = 32  # runtimes of a model are compared and timed on this many slices


@dataclass(frozen=True)
class ModelReference:
    """A model that is not loaded yet.

    key: digest of the model, under which its runtimes are cached; empty: unknown. name: for
    messages. load: returns the Keras model. post: the post-processing that it was judged with,
    or that of params.yaml for a model file.
    """

    key: str
    name: str
    load: Callable[[], Any]
    post: PostProcessing


def model_reference(project: Project, model_file: Path | None) -> ModelReference:
    """Refer to the model of a file, or to the champion."""
    if model_file is not None:
        key = files.sha256(model_file) if model_file.is_file() else ""
        load = partial(_load, model_file)
        post = PostProcessing.from_params(project.params.evaluate)
        return ModelReference(key, str(model_file), load, post)
    registry = open_registry(project)
    champion = registry.champion()
    if champion is None:
        raise GliaflowError(
            "there is no champion yet; train and judge a model with `gliaflow run`, or give a file "
            "with --model"
        )
    folder = registry.verify(champion)  # also if its runtime is cached
    load = partial(_load, folder / scan_model.NETWORK_FILE)
    post = scan_model.read_settings(folder)
    return ModelReference(champion.digest, f"version {champion.version}", load, post)


def _load(path: Path) -> Any:
    """Load a model and make sure that it maps slices to probabilities.

    Raises:
        GliaflowError: its input or output has another shape.
    """
    native_logs.import_keras()
    loaded = model_files.load_model(path)
    inputs, outputs = ([tuple(t.shape) for t in side] for side in (loaded.inputs, loaded.outputs))
    (height, width) = inputs[0][1:3] if len(inputs[0]) == 4 else (None, None)
    if inputs != [(None, height, width, 3)] or outputs != [(None, height, width, 1)] or not height:
        raise GliaflowError(
            f"the model takes {inputs} and gives {outputs}; expected slices (height, width, 3) and "
            "probabilities of the same size: use a model that gliaflow trained"
        )
    return loaded


def select_runtime(
    project: Project,
    reference: ModelReference,
    patients: dict[str, list[Path]],
    folder: Path,
    *,
    exact: bool,
) -> runtimes.Runtime:
    """Return the fastest runtime of a model; compare runtimes on these scans if none is cached."""
    cache = project.local.runtimes / reference.key[:16]
    if reference.key:
        cached = runtimes.load_cached(cache, exact=exact, load=reference.load)
        if cached is not None:
            return cached
    model = reference.load()
    shape = model.inputs[0].shape[1:]
    sample = _sample(scans_to_predict.read_all(patients, folder, shape), shape, model.name)
    return runtimes.select(cache, model, sample, threshold=reference.post.threshold, exact=exact)


def _sample(patients: Iterator[ReadPatient], shape: tuple[int, ...], model_name: str) -> np.ndarray:
    """Return slices to compare runtimes on; a black one if no patient can be read."""
    scans_read: list[np.ndarray] = []
    for patient in patients:
        if patient.scan is not None:
            images = patient.scan.images
            scans_read.append(intensity.scale_for_model(model_name, images, images))
        if sum(map(len, scans_read)) >= SAMPLE_SLICES:
            break
    if not scans_read:
        return np.zeros((1, *shape), np.uint8)
    return runtimes.sample_slices(scans_read, SAMPLE_SLICES)
