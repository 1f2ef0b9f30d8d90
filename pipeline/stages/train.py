"""Train the ResUNet on the training patients; keep the epoch that validation liked best, the last
one, or the mean of the last few, as `params.yaml: train` says. Or several of them, one after
another, from seeds that follow one another, each of them once more at twice the size: the model
then gives their mean.

Needs Keras, numpy, pandas, OpenCV, pydantic and PyYAML alone. Where MLflow is installed
the curves go there as well while they are made.
"""

from dataclasses import asdict, dataclass
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
    streaming,
    tables,
)
from pipeline.domain import intensity, schedule
from pipeline.errors import GliaflowError
from pipeline.network import augment, backend, lean, recipe, resunet
from pipeline.params import Params, Train

COMPILED = Path(".local") / "compiled"


@dataclass(frozen=True)
class Turn:
    """One network of a model.

    prefix: begins the names of its layers. wanted: its own settings. goes_on: it starts from the
    weights of the turn before, not from chance.
    """

    prefix: str
    wanted: Train
    goes_on: bool


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
    if wanted.finer.epochs:
        resunet.finer_factor(factor)
    backend.make_repeatable(wanted.seed)
    backend.keep_compiled(COMPILED)
    devices = backend.use_all_devices(wanted.batch)
    if devices > 1:
        print(f"train: {devices} devices, each with {wanted.batch // devices} slices of a step")
    chosen = [_chosen(rows, name, wanted) for name in ("train", "validation")]
    turns = _turns(wanted)
    sources = {
        side: _sources(chosen, wanted, scans=scans, factor=height // side)
        for side in sorted({turn.wanted.image_size for turn in turns})
    }
    digest = checkpoints.training_digest(params, manifest=manifest, splits=splits)
    stores = [checkpoints.Store(checkpoint, digest, 1 + place) for place in range(len(turns))]
    weights: dict[str, Any] = {}
    drawn: lean.Weights | None = None
    found: list[dict[str, Any]] = []
    with (
        locks.alone(checkpoint.with_name("training.lock"), what="train: another training runs"),
        curves.live(params.register_, digest=digest) as log,
    ):
        for place, (turn, store) in enumerate(zip(turns, stores, strict=True)):
            if turn.prefix:
                after = f", goes on from network {place}" if turn.goes_on else ""
                print(f"train: network {1 + place} of {len(turns)}{after}")
            slices = sources[turn.wanted.image_size]
            start = drawn if turn.goes_on else None
            network, rows_found = _train(
                turn.wanted, *slices, store, log, start=start, before=len(found)
            )
            drawn = lean.to_drawn(lean.weights(network))
            weights |= {turn.prefix + name: values for name, values in drawn.items()}
            rows_found = _counted_on(rows_found, len(found))
            found += [{"network": 1 + place} | row for row in rows_found]
    whole = resunet.build(
        image_size=wanted.image_size,
        filters=wanted.filters,
        height=height,
        width=width,
        name=intensity.NAMES[wanted.intensity],
        networks=wanted.networks,
        finer=bool(wanted.finer.epochs),
    )
    lean.assign(whole, weights)
    model_files.save(whole, model)
    files.write_table(history, pd.DataFrame(found))
    for store in stores:
        store.clear()


def _turns(wanted: Train) -> list[Turn]:
    """The networks in the order of their training."""
    finer, turns = wanted.finer, []
    for prefix in resunet.prefixes(wanted.networks, finer=bool(finer.epochs)):
        if prefix.startswith(resunet.FINER):
            own = finer.model_dump() | {"image_size": 2 * wanted.image_size}
            turns.append(Turn(prefix, turns[-1].wanted.model_copy(update=own), goes_on=True))
            continue
        seed = wanted.seed + sum(not turn.goes_on for turn in turns)
        own = {"seed": seed % 2**32}
        turns.append(Turn(prefix, wanted.model_copy(update=own), goes_on=False))
    return turns


def _train(
    wanted: Train,
    train: recipe.Source,
    validation: recipe.Source,
    store: checkpoints.Store,
    log: curves.Log,
    *,
    start: lean.Weights | None,
    before: int,
) -> tuple[Any, list[dict[str, Any]]]:
    """Train to the end of the schedule; the network with its best weights, and the curves.

    Args:
        start: weights of a drawn network to start from; None: drawn by chance.
        before: epochs of the networks before this one, which MLflow counts on from.
    """
    backend.make_repeatable(wanted.seed)
    side, filters = wanted.image_size, wanted.filters
    if start is None:
        drawn = resunet.build(image_size=side, filters=filters, height=side, width=side)
        start = lean.weights(drawn)
    policy = backend.policy(wanted.precision)
    network = lean.build(image_size=side, filters=filters, dtype=policy)
    lean.assign(network, lean.to_lean(start))
    loss = recipe.Loss(wanted.missed_weight, wanted.exponent, wanted.loss_by_slice)
    recipe.compile_model(network, loss=loss, learning_rate=wanted.learning_rate)
    print(
        f"train: {len(train.patients)} slices, {len(validation.patients)} to validate, "
        f"{side}x{side} px, {network.count_params():,} parameters, {wanted.precision}"
    )
    rules = _rules(wanted)
    state, found, best, mean = schedule.start(rules), [], recipe.variables(network), None
    last = store.load()
    if last is not None:
        state, found, best, mean = last.state, last.rows, last.best, last.mean
        recipe.restore(network, last.variables)
        print(f"train: goes on after epoch {found[-1]['epoch']}, which an earlier run finished")
        log.rows(_counted_on(found, before))
    epochs = recipe.epochs(
        network,
        train=train,
        validation=validation,
        batch=wanted.batch,
        balanced=wanted.slices == "balanced",
        augmentation=augment.Settings(**wanted.augment.model_dump()),
        loss=loss,
        rules=rules,
        state=state,
        done=len(found),
        seed=wanted.seed,
    )
    left = wanted.epochs - len(found)
    for epoch, state in progress.track(epochs, total=left, label="training"):
        found = [*found, asdict(epoch)]
        variables = recipe.variables(network)
        best = variables if state.is_best else best
        averaged = epoch.epoch - (wanted.epochs - wanted.average_epochs)
        if averaged > 0:
            mean = recipe.mean_of(mean, variables, averaged)
        store.save(variables, state, found, mean)
        log.rows(_counted_on(found[-1:], before))
        _say(epoch, is_best=state.is_best and rules.kind == "plateau")
    if mean is None:
        recipe.restore(network, best)
        print(f"train: kept epoch {state.best_epoch}, validation Tversky {state.best_score:.4f}")
    else:
        recipe.restore(network, mean)
        print(f"train: kept the mean of the last {wanted.average_epochs} epochs' weights")
    return network, found


def _counted_on(rows: list[dict[str, Any]], before: int) -> list[dict[str, Any]]:
    return [row | {"epoch": row["epoch"] + before} for row in rows]


def _chosen(rows: pd.DataFrame, split: str, wanted: Train) -> pd.DataFrame:
    """The rows of a split's slices, patients in order of name."""
    chosen = rows[rows.split == split]
    if wanted.slices == "tumour":
        chosen = chosen[chosen.tumour_pixels > 0]
    if chosen.empty:
        raise GliaflowError(
            f"no slices for {split}; expected at least one patient there: bring more patients, or "
            f"change the shares in params.yaml: split"
        )
    return chosen.sort_values(["patient", "position"])


def _sources(
    chosen: list[pd.DataFrame], wanted: Train, *, scans: Path, factor: int
) -> list[recipe.Source]:
    """Of training and validation: slices in memory, on the device where that pays; read while training where they are too many."""
    side, by_scan = wanted.image_size, wanted.intensity == "scan"
    gib = sum(map(len, chosen)) * side * side * 4 / 2**30
    if gib > wanted.memory_gib:
        print(
            f"train: {gib:.3g} GiB of slices, over train.memory_gib: they are read while training"
        )
        return [streaming.Mapped(scans, rows, factor=factor, by_scan=by_scan) for rows in chosen]
    found = [
        recipe.Slices(
            *arrays.load(scans, tables.positions(rows), factor=factor, by_scan=by_scan),
            has_tumour=rows.tumour_pixels.to_numpy() > 0,
        )
        for rows in chosen
    ]
    return [one.placed() for one in found] if backend.keeps_slices_on_device() else list(found)


def _rules(wanted: Train) -> schedule.Rules:
    return schedule.Rules(
        kind=wanted.schedule,
        epochs=wanted.epochs,
        learning_rate=wanted.learning_rate,
        patience=wanted.patience,
        plateau_patience=wanted.plateau_patience,
        plateau_factor=wanted.plateau_factor,
        min_learning_rate=wanted.min_learning_rate,
    )


def _say(epoch: recipe.Epoch, *, is_best: bool) -> None:
    mark = ", best so far" if is_best else ""
    print(
        f"train: epoch {epoch.epoch}: loss {epoch.loss:.4f}, validation loss {epoch.val_loss:.4f}, "
        f"validation Tversky {epoch.val_tversky:.4f}{mark}",
        flush=True,
    )
