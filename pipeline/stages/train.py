"""Train the ensemble that `params.yaml: train` describes, and write the model.

Needs Keras, numpy, scipy, pandas, OpenCV, pydantic and PyYAML only. If MLflow is installed,
curves are sent there as well.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import keras
import pandas as pd

from pipeline.adapters.model import checkpoints, model_files
from pipeline.adapters.process import locks, progress
from pipeline.adapters.scans import training_sources
from pipeline.adapters.storage import csv_files, stage_tables
from pipeline.adapters.tracking import training_log
from pipeline.domain import intensity
from pipeline.errors import GliaflowError
from pipeline.network import architecture, backend, fused, resunet, training
from pipeline.network.training import Data, Hooks, NetworkConfig
from pipeline.params import Params, Train

T = TypeVar("T")


def run(
    params: Params,
    *,
    code: str,
    scans: Path,
    manifest: Path,
    quarantine: Path,
    splits: Path,
    model: Path,
    history: Path,
    checkpoint: Path,
    lock: Path,
    compiled: Path,
) -> None:
    """Write the model, which takes raw slices, and its training history.

    A training that was interrupted resumes after its last finished epoch, if code, data,
    split, parameters and Keras backend are the same.

    Args:
        code: digest of the modules that this stage depends on.
        model, history: files to write.
        checkpoint: folder of checkpoints; this training's are removed at its end.
        lock: held while training, so that one training runs at a time.
        compiled: cache of compiled programs (JAX on a GPU).

    Raises:
        GliaflowError: the slices do not fit `train.image_size`, a split is empty, or training
            fails; see `training.train_network`.
    """
    section = params.train
    rows = stage_tables.join_splits(stage_tables.accepted_slices(manifest, quarantine), splits)
    configs = training.ensemble(section)
    factors = _downsampling_factors(params, configs)
    _prepare_devices(section, compiled)
    data = _load(rows, section, factors, scans)
    digest = checkpoints.training_digest(params, code=code, manifest=manifest, splits=splits)
    stores = [checkpoints.Store(checkpoint, digest, number) for number, _ in enumerate(configs, 1)]
    with (
        locks.hold(lock, what="train: another training runs"),
        training_log.open_log(params.register_, digest=digest) as log,
    ):
        hooks = Hooks(log.rows, _track, partial(print, flush=True))
        weights, epochs = training.train_ensemble(configs, data, stores, hooks)
    model_files.save_model(_assemble(params, weights), model)
    csv_files.write_table(history, pd.DataFrame(epochs))
    for store in stores:
        store.clear()


def _downsampling_factors(params: Params, configs: Sequence[NetworkConfig]) -> dict[int, int]:
    """Return the downsampling factor of every image size in use.

    Raises:
        GliaflowError: an image size does not divide the slices.
    """
    height, width = params.validate_.height_px, params.validate_.width_px
    factor = architecture.downsampling_factor(
        image_size=params.train.image_size, height=height, width=width
    )
    if params.train.refine.epochs:
        architecture.refined_factor(factor)
    return {config.image_size: height // config.image_size for config in configs}


def _assemble(params: Params, weights: fused.Weights) -> keras.Model:
    """Build the model, which averages all networks, with their weights."""
    section = params.train
    model = resunet.build(
        image_size=section.image_size,
        filters=section.filters,
        height=params.validate_.height_px,
        width=params.validate_.width_px,
        name=intensity.MODEL_NAMES[section.intensity],
        networks=section.networks,
        refined=bool(section.refine.epochs),
    )
    fused.set_layer_weights(model, weights)
    return model


def _prepare_devices(section: Train, compiled: Path) -> None:
    """Seed, and set up the devices before anything is placed on them."""
    backend.make_repeatable(section.seed)
    backend.keep_compiled(compiled)
    devices = backend.use_all_devices(section.batch)
    if devices > 1:
        print(
            f"train: {devices} devices, {section.batch // devices} slices of each step per device"
        )


def _load(
    rows: pd.DataFrame, section: Train, factors: dict[int, int], scans: Path
) -> dict[int, Data]:
    """Open the slices of training and validation at every image size in use.

    Args:
        factors: downsampling factors by image size.
    """
    train, validation = (_chosen(rows, split, section) for split in ("train", "validation"))
    loaded = {}
    for side, factor in sorted(factors.items()):
        gib = training_sources.gib_in_memory(len(train) + len(validation), side=side)
        fits = gib <= section.memory_gib
        if not fits:
            print(f"train: {gib:.3g} GiB of slices exceed train.memory_gib: streaming from disk")
        source = partial(
            training_sources.open_slices,
            scans, factor=factor, by_scan=section.intensity == "scan", in_memory=fits,
        )  # fmt: skip
        loaded[side] = Data(source(train), source(validation))
    return loaded


def _chosen(rows: pd.DataFrame, split: str, section: Train) -> pd.DataFrame:
    """Return the rows of a split's slices, patients in order of name."""
    chosen = rows[rows.split == split]
    if section.slices == "tumour":
        chosen = chosen[chosen.tumour_pixels > 0]
    if chosen.empty:
        raise GliaflowError(
            f"no slices for {split}; expected at least one patient there: add patients, or "
            "change the shares in params.yaml: split"
        )
    return chosen.sort_values(["patient", "position"])


def _track(epochs: Iterable[T], left: int) -> Iterator[T]:
    return progress.track(epochs, total=left, label="training")
