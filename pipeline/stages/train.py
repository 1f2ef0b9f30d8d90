"""Train the ResUNet on the training patients; keep the epoch that validation liked best.

Needs Keras, numpy, pandas, OpenCV, pydantic and PyYAML alone. Where MLflow is installed
the curves go there as well while they are made.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.adapters import (
    arrays,
    checkpoints,
    curves,
    files,
    locks,
    model_files,
    progress,
    tables,
)
from pipeline.domain import schedule
from pipeline.errors import GliaflowError
from pipeline.network import augment, backend, lean, recipe, resunet
from pipeline.params import Params, Train


def run(
    params: Params,
    *,
    scans: Path,
    manifest: Path,
    quarantine: Path,
    splits: Path,
    model: Path,
    history: Path,
    checkpoint: Path,
) -> None:
    """Write the model, which takes raw slices, and its curves.

    A training that was ended goes on after its last finished epoch, where data, split and
    parameters are still the same.
    """
    wanted = params.train
    rows = tables.with_split(tables.accepted(manifest, quarantine), splits)
    height, width = params.validate_.height_px, params.validate_.width_px
    factor = resunet.shrink_factor(image_size=wanted.image_size, height=height, width=width)
    train, validation = (
        _slices(rows, name, wanted, scans=scans, factor=factor) for name in ("train", "validation")
    )
    backend.make_repeatable(wanted.seed)
    digest = checkpoints.training_digest(params, manifest=manifest, splits=splits)
    store = checkpoints.Store(checkpoint, digest)
    with (
        locks.alone(checkpoint.with_name("training.lock"), what="train: another training runs"),
        curves.live(params.register_, digest=digest) as log,
    ):
        network, found = _train(wanted, train, validation, store, log)
    whole = resunet.build(
        image_size=wanted.image_size, filters=wanted.filters, height=height, width=width
    )
    lean.assign(whole, lean.to_drawn(lean.weights(network)))
    model_files.save(whole, model)
    files.write_table(history, pd.DataFrame(found))
    store.clear()


def _train(
    wanted: Train,
    train: recipe.Slices,
    validation: recipe.Slices,
    store: checkpoints.Store,
    log: curves.Log,
) -> tuple[Any, list[dict[str, Any]]]:
    """Train to the end of the schedule; the network with its best weights, and the curves."""
    side, filters = wanted.image_size, wanted.filters
    drawn = resunet.build(image_size=side, filters=filters, height=side, width=side)
    policy = backend.policy(wanted.precision)
    network = lean.build(image_size=side, filters=filters, dtype=policy)
    lean.assign(network, lean.to_lean(lean.weights(drawn)))
    loss = recipe.Loss(missed_weight=wanted.missed_weight, exponent=wanted.exponent)
    recipe.compile_model(network, loss=loss, learning_rate=wanted.learning_rate)
    print(
        f"train: {len(train)} slices, {len(validation)} to validate, "
        f"{side}x{side} px, {network.count_params():,} parameters, {wanted.precision}"
    )
    state, found, best = schedule.State(wanted.learning_rate), [], recipe.variables(network)
    last = store.load()
    if last is not None:
        state, found, best = last.state, last.rows, last.best
        recipe.restore(network, last.variables)
        print(f"train: goes on after epoch {found[-1]['epoch']}, which an earlier run finished")
        log.rows(found)
    epochs = recipe.epochs(
        network,
        train=train,
        validation=validation,
        batch=wanted.batch,
        last=wanted.epochs,
        augmentation=augment.Settings(**wanted.augment.model_dump()),
        loss=loss,
        rules=_rules(wanted),
        state=state,
        done=len(found),
        seed=wanted.seed,
    )
    left = wanted.epochs - len(found)
    for epoch, state in progress.track(epochs, total=left, label="training"):
        found = [*found, asdict(epoch)]
        variables = recipe.variables(network)
        best = variables if state.is_best else best
        store.save(variables, state, found)
        log.rows(found[-1:])
        _say(epoch, state)
    recipe.restore(network, best)
    print(f"train: best epoch {state.best_epoch}, validation Tversky {state.best_score:.4f}")
    return network, found


def _slices(
    rows: pd.DataFrame, split: str, wanted: Train, *, scans: Path, factor: int
) -> recipe.Slices:
    chosen = rows[rows.split == split]
    if wanted.slices == "tumour":
        chosen = chosen[chosen.tumour_pixels > 0]
    if chosen.empty:
        raise GliaflowError(
            f"no slices for {split}; expected at least one patient there: bring more patients, or "
            f"change the shares in params.yaml: split"
        )
    return recipe.Slices(*arrays.load(scans, tables.positions(chosen), factor=factor))


def _rules(wanted: Train) -> schedule.Rules:
    return schedule.Rules(
        patience=wanted.patience,
        plateau_patience=wanted.plateau_patience,
        plateau_factor=wanted.plateau_factor,
        min_learning_rate=wanted.min_learning_rate,
    )


def _say(epoch: recipe.Epoch, state: schedule.State) -> None:
    mark = ", best so far" if state.is_best else ""
    print(
        f"train: epoch {epoch.epoch}: loss {epoch.loss:.4f}, validation loss {epoch.val_loss:.4f}, "
        f"validation Tversky {epoch.val_tversky:.4f}{mark}",
        flush=True,
    )
