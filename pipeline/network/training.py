"""Train the networks of an ensemble in turn; a training can resume after any epoch.

N slices, S x S pixels at a network's image size. Does not know files: checkpoints, history and
progress go through the protocols below.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import keras
import numpy as np

from pipeline.domain import schedule
from pipeline.domain.training_state import Checkpoint
from pipeline.network import architecture, augment, backend, epoch_loop, fused, resunet
from pipeline.network.epoch_loop import EpochConfig, EpochResult, LossConfig
from pipeline.network.fused import Weights
from pipeline.network.training_data import SliceSource
from pipeline.params import Train

T = TypeVar("T")
Row = dict[str, Any]  # of history.csv


@dataclass(frozen=True)
class NetworkConfig:
    """How one network of an ensemble is trained.

    prefix: of its layer names in the model; empty if the model is this network alone.
    image_size: S in pixels. filters: five widths. precision: `float32` or `bfloat16`.
    average_epochs: the network gets the mean of so many last epochs' weights; 0: the weights
        of the epoch that the schedule keeps.
    continues: start from the weights of the network before it, not from random ones.
    epochs: configuration of the epoch loop.
    """

    prefix: str
    image_size: int
    filters: tuple[int, ...]
    precision: str
    average_epochs: int
    continues: bool
    epochs: EpochConfig


@dataclass(frozen=True)
class Data:
    """Slices to train on, and slices to validate on."""

    train: SliceSource
    validation: SliceSource


class CheckpointStore(Protocol):
    """Keeps the last checkpoint of one network's training."""

    def load(self) -> Checkpoint | None:
        """Return the last checkpoint; None if there is none."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Store the state after an epoch."""


@dataclass(frozen=True)
class Hooks:
    """Functions that training reports through.

    log: takes new rows of history.
    track: passes epochs on and shows progress; its second argument is how many are left.
    say: takes a message.
    """

    log: Callable[[list[Row]], None]
    track: Callable[[Iterable[Any], int], Iterator[Any]]
    say: Callable[[str], None]


def ensemble(train: Train) -> list[NetworkConfig]:
    """Return the networks of a model in the order in which they are trained.

    Networks differ by their seeds, which follow one another (modulo 2**32). With
    `train.refine` each network is followed by its refinement, which continues at twice the
    image size, with the same seed and on its own schedule.
    """
    configs: list[NetworkConfig] = []
    is_refined = bool(train.refine.epochs)
    section, number = train, 0
    for prefix in architecture.network_prefixes(train.networks, refined=is_refined):
        refines = prefix.startswith(architecture.REFINED)
        if refines:
            changes = train.refine.model_dump() | {"image_size": 2 * train.image_size}
            section = section.model_copy(update=changes)
        else:
            section = train.model_copy(update={"seed": (train.seed + number) % 2**32})
            number += 1
        configs.append(_network_config(section, prefix, continues=refines))
    return configs


def _network_config(section: Train, prefix: str, *, continues: bool) -> NetworkConfig:
    return NetworkConfig(
        prefix=prefix,
        image_size=section.image_size,
        filters=section.filters,
        precision=section.precision,
        average_epochs=section.average_epochs,
        continues=continues,
        epochs=EpochConfig(
            batch=section.batch,
            balanced=section.slices == "balanced",
            augmentation=augment.Augmentation(**section.augment.model_dump()),
            loss=LossConfig(section.missed_weight, section.exponent, section.loss_by_slice),
            rules=schedule.Rules(
                kind=section.schedule,
                epochs=section.epochs,
                learning_rate=section.learning_rate,
                patience=section.patience,
                plateau_patience=section.plateau_patience,
                plateau_factor=section.plateau_factor,
                min_learning_rate=section.min_learning_rate,
            ),
            seed=section.seed,
        ),
    )


def train_ensemble(
    configs: Sequence[NetworkConfig],
    data: Mapping[int, Data],
    stores: Sequence[CheckpointStore],
    hooks: Hooks,
) -> tuple[Weights, list[Row]]:
    """Train every network of an ensemble.

    Args:
        configs: in the order of training, as `ensemble` returns them.
        data: by image size.
        stores: checkpoints, one store per network.

    Returns:
        Weights of all networks by layer name in the model, and the history: one row per
        epoch, with `network` (from 1) and `epoch`, which is counted on from one network to
        the next.
    """
    weights: Weights = {}
    previous: Weights | None = None
    history: list[Row] = []
    for number, (config, store) in enumerate(zip(configs, stores, strict=True), start=1):
        if config.prefix:
            origin = f", continues from network {number - 1}" if config.continues else ""
            hooks.say(f"train: network {number} of {len(configs)}{origin}")
        start = previous if config.continues else None
        previous, rows = train_network(
            config, data[config.image_size], store, hooks, start=start, epochs_before=len(history)
        )
        weights |= {config.prefix + name: values for name, values in previous.items()}
        history += [{"network": number} | row for row in _counted_on(rows, len(history))]
    return weights, history


def train_network(
    config: NetworkConfig,
    data: Data,
    store: CheckpointStore,
    hooks: Hooks,
    *,
    start: Weights | None = None,
    epochs_before: int = 0,
) -> tuple[Weights, list[Row]]:
    """Train one network to the end of its schedule, from its last checkpoint if there is one.

    Args:
        start: initial weights of the plain network; None: random ones.
        epochs_before: epochs of the networks before this one; logged epochs count on from it.

    Returns:
        Weights of the plain network, and one row per epoch, counted from 1. The weights are
        those of the best epoch (schedule `plateau`), of the last one (`cosine`), or the mean
        of the last few (`average_epochs`).

    Raises:
        GliaflowError: see `epoch_loop.run_epochs` and `backend.policy`.
    """
    backend.make_repeatable(config.epochs.seed)
    network = _build(config, start)
    hooks.say(
        f"train: {len(data.train.patients)} slices, {len(data.validation.patients)} to validate, "
        f"{config.image_size}x{config.image_size} px, {network.count_params():,} parameters, "
        f"{config.precision}"
    )
    progress = _resume(network, config, store, hooks, epochs_before)
    epochs = epoch_loop.run_epochs(
        network, train=data.train, validation=data.validation, config=config.epochs,
        state=progress.state, done=len(progress.rows),
    )  # fmt: skip
    left = config.epochs.rules.epochs - len(progress.rows)
    for epoch, state in hooks.track(epochs, left):
        progress = _after_epoch(network, config, progress, epoch, state)
        store.save(progress)
        hooks.log(_counted_on(progress.rows[-1:], epochs_before))
        hooks.say(_epoch_message(epoch, is_best=_is_best(config, state)))
    hooks.say(_keep_weights(network, config, progress))
    return fused.unfuse(fused.layer_weights(network)), progress.rows


def _build(config: NetworkConfig, start: Weights | None) -> keras.Model:
    """Build and compile the fused network, with initial weights of the plain one."""
    side = config.image_size
    if start is None:
        plain = resunet.build(image_size=side, filters=config.filters, height=side, width=side)
        start = fused.layer_weights(plain)
    policy = backend.policy(config.precision)
    network = fused.build(image_size=side, filters=config.filters, dtype=policy)
    fused.set_layer_weights(network, fused.fuse(start))
    learning_rate = config.epochs.rules.learning_rate
    epoch_loop.compile_model(network, loss=config.epochs.loss, learning_rate=learning_rate)
    return network


def _resume(
    network: keras.Model,
    config: NetworkConfig,
    store: CheckpointStore,
    hooks: Hooks,
    epochs_before: int,
) -> Checkpoint:
    """Restore the last checkpoint, or return the state before the first epoch."""
    last = store.load()
    if last is None:
        variables = epoch_loop.get_variables(network)
        return Checkpoint(
            variables, variables, None, schedule.initial_state(config.epochs.rules), []
        )
    epoch_loop.set_variables(network, last.variables)
    hooks.say(f"train: resumes after epoch {last.rows[-1]['epoch']} of an earlier run")
    hooks.log(_counted_on(last.rows, epochs_before))
    return last


def _after_epoch(
    network: keras.Model,
    config: NetworkConfig,
    progress: Checkpoint,
    epoch: EpochResult,
    state: schedule.State,
) -> Checkpoint:
    """Return the checkpoint after an epoch."""
    variables = epoch_loop.get_variables(network)
    best = variables if state.is_best else progress.best
    averaged = epoch.epoch - (config.epochs.rules.epochs - config.average_epochs)
    mean: list[np.ndarray] | None = progress.mean
    if averaged > 0:
        mean = epoch_loop.running_mean(mean, variables, averaged)
    return Checkpoint(variables, best, mean, state, [*progress.rows, asdict(epoch)])


def _keep_weights(network: keras.Model, config: NetworkConfig, progress: Checkpoint) -> str:
    """Set the network to the weights that are kept; return a message that names them."""
    if progress.mean is not None:
        epoch_loop.set_variables(network, progress.mean)
        return f"train: kept the mean of the last {config.average_epochs} epochs' weights"
    epoch_loop.set_variables(network, progress.best)
    state = progress.state
    return f"train: kept epoch {state.best_epoch}, validation Tversky {state.best_score:.4f}"


def _is_best(config: NetworkConfig, state: schedule.State) -> bool:
    """Return whether an epoch is the best so far, on a schedule that keeps the best one."""
    return state.is_best and config.epochs.rules.kind == "plateau"


def _epoch_message(epoch: EpochResult, *, is_best: bool) -> str:
    mark = ", best so far" if is_best else ""
    return (
        f"train: epoch {epoch.epoch}: loss {epoch.loss:.4f}, validation loss {epoch.val_loss:.4f}, "
        f"validation Tversky {epoch.val_tversky:.4f}{mark}"
    )


def _counted_on(rows: list[Row], before: int) -> list[Row]:
    return [row | {"epoch": row["epoch"] + before} for row in rows]
