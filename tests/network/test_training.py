from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import squares

from pipeline import params
from pipeline.domain import schedule
from pipeline.domain.training_state import Checkpoint
from pipeline.network import augment, epoch_loop, fused, resunet, training
from pipeline.network.training import Data, Hooks, NetworkConfig

COMMITTED = params.load(Path(__file__).parents[2] / "params.yaml").train
FILTERS = (2, 2, 2, 2, 2)
SLICES = {
    side: squares.make(patients=[0, 0, 1, 1], side=side, square=7, last=8) for side in (16, 32)
}
DATA = {side: Data(train=slices, validation=slices) for side, slices in SLICES.items()}
PLATEAU = schedule.Rules(
    kind="plateau",
    epochs=4,
    learning_rate=0.01,
    patience=100,
    plateau_patience=100,
    plateau_factor=0.5,
    min_learning_rate=1e-5,
)
COSINE = replace(PLATEAU, kind="cosine")


class InterruptionError(Exception):
    """Raised instead of the kill that ends a process."""


class MemoryStore:
    """A checkpoint store in memory, whose `save` can interrupt the training.

    Args:
        last: checkpoint of an earlier run.
        interrupt_after: number of saved checkpoints after which `save` raises; 0: never.
    """

    def __init__(self, last: Checkpoint | None = None, *, interrupt_after: int = 0):
        self.saved = [] if last is None else [last]
        self.interrupt_after = interrupt_after

    def load(self) -> Checkpoint | None:
        return self.saved[-1] if self.saved else None

    def save(self, checkpoint: Checkpoint) -> None:
        self.saved.append(checkpoint)
        if len(self.saved) == self.interrupt_after:
            raise InterruptionError


class Recorder:
    """Hooks that record the rows that were logged, call by call."""

    def __init__(self) -> None:
        self.logged: list[list[dict[str, Any]]] = []
        self.left: list[int] = []
        self.hooks = Hooks(self.logged.append, self._track, lambda message: None)

    def epochs(self) -> list[list[int]]:
        return [[row["epoch"] for row in rows] for rows in self.logged]

    def _track(self, epochs, left):
        self.left.append(left)
        return epochs


def section(**changes: Any) -> params.Train:
    return params.Train.model_validate(COMMITTED.model_dump() | changes)


def config(**changes: Any) -> NetworkConfig:
    """Return the configuration of a small network; `changes` may name rules and seed too."""
    epochs = epoch_loop.EpochConfig(
        batch=2,
        balanced=False,
        augmentation=augment.Augmentation(0.5, 15, 0.1, 0.05, 0.3),
        loss=epoch_loop.LossConfig(missed_weight=0.7, exponent=0.75),
        rules=changes.pop("rules", PLATEAU),
        seed=changes.pop("seed", 1),
    )
    plain = NetworkConfig(
        prefix="", image_size=16, filters=FILTERS, precision="float32", average_epochs=0,
        continues=False, epochs=epochs,
    )  # fmt: skip
    return replace(plain, **changes)


def train(
    network: NetworkConfig, store: MemoryStore, recorder: Recorder | None = None, **options: Any
) -> tuple[fused.Weights, list[dict[str, Any]]]:
    hooks = (recorder or Recorder()).hooks
    return training.train_network(network, DATA[network.image_size], store, hooks, **options)


def weights_of(variables: list[np.ndarray]) -> fused.Weights:
    """Return the weights of the plain network from variables of a checkpoint."""
    network = fused.build(image_size=16, filters=FILTERS)
    epoch_loop.compile_model(network, loss=config().epochs.loss, learning_rate=0.01)
    epoch_loop.set_variables(network, variables)
    return fused.unfuse(fused.layer_weights(network))


def are_equal(first: fused.Weights, second: fused.Weights) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(a, b)
        for name, values in first.items()
        for a, b in zip(values, second[name], strict=True)
    )


def without_prefix(weights: fused.Weights, prefix: str) -> fused.Weights:
    return {
        name.removeprefix(prefix): values
        for name, values in weights.items()
        if name.startswith(prefix)
    }


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[fused.Weights, list[dict[str, Any]], MemoryStore]:
    """A network trained for four epochs at once: weights, rows, checkpoints."""
    store = MemoryStore()
    return *train(config(rules=COSINE), store), store


# The configuration of an ensemble


def test_a_model_of_one_network_has_its_seed_and_no_prefix():
    (network,) = training.ensemble(section(networks=1, seed=7))
    assert (network.prefix, network.epochs.seed, network.continues) == ("", 7, False)
    assert network.image_size == COMMITTED.image_size


def test_seeds_of_an_ensemble_follow_one_another():
    networks = training.ensemble(section(networks=3, seed=7))
    assert [network.epochs.seed for network in networks] == [7, 8, 9]
    assert [network.prefix for network in networks] == ["network_1_", "network_2_", "network_3_"]
    assert not any(network.continues for network in networks)


def test_the_seed_after_the_largest_one_is_zero():
    networks = training.ensemble(section(networks=3, seed=2**32 - 2))
    assert [network.epochs.seed for network in networks] == [2**32 - 2, 2**32 - 1, 0]


def test_networks_of_an_ensemble_differ_by_prefix_and_seed_only():
    first, second = training.ensemble(section(networks=2, seed=7))
    assert second == replace(first, prefix="network_2_", epochs=replace(first.epochs, seed=8))


REFINE = {"epochs": 3, "learning_rate": 0.001, "min_learning_rate": 0.0002, "average_epochs": 2}


def test_a_refinement_continues_at_twice_the_image_size_on_its_own_schedule():
    network, refinement = training.ensemble(
        section(schedule="cosine", epochs=9, average_epochs=4, image_size=32, refine=REFINE)
    )
    assert (network.image_size, network.average_epochs, network.continues) == (32, 4, False)
    assert refinement == replace(
        network,
        prefix="finer_1_",
        image_size=64,
        average_epochs=2,
        continues=True,
        epochs=replace(
            network.epochs,
            rules=replace(
                network.epochs.rules, epochs=3, learning_rate=0.001, min_learning_rate=0.0002
            ),
        ),
    )


def test_each_network_of_an_ensemble_is_followed_by_its_refinement():
    networks = training.ensemble(
        section(schedule="cosine", networks=2, seed=7, image_size=32, refine=REFINE)
    )
    assert [
        (network.prefix, network.image_size, network.epochs.seed, network.continues)
        for network in networks
    ] == [
        ("network_1_", 32, 7, False),
        ("finer_1_", 64, 7, True),
        ("network_2_", 32, 8, False),
        ("finer_2_", 64, 8, True),
    ]
    assert [network.epochs.rules.epochs for network in networks] == [COMMITTED.epochs, 3] * 2


def test_parameters_reach_the_epoch_loop():
    (network,) = training.ensemble(
        section(
            slices="balanced", batch=5, missed_weight=0.6, exponent=0.5, loss_by_slice=0.3,
            augment=COMMITTED.augment.model_dump() | {"paste": 0.25},
        )
    )  # fmt: skip
    assert network.epochs.balanced
    assert network.epochs.batch == 5
    assert network.epochs.loss == epoch_loop.LossConfig(0.6, 0.5, 0.3)
    assert network.epochs.augmentation.paste == 0.25
    assert not training.ensemble(section(slices="tumour"))[0].epochs.balanced


# One network


def test_rows_count_epochs_from_one_and_each_epoch_has_a_checkpoint(uninterrupted):
    _, rows, store = uninterrupted
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [checkpoint.rows for checkpoint in store.saved] == [rows[:n] for n in (1, 2, 3, 4)]


def test_weights_are_those_of_the_plain_network(uninterrupted):
    weights, *_ = uninterrupted
    plain = resunet.build(image_size=16, filters=FILTERS, height=16, width=16)
    shapes = {
        layer.name: [w.shape for w in layer.weights] for layer in plain.layers if layer.weights
    }
    assert {name: [w.shape for w in values] for name, values in weights.items()} == shapes


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_resumed_training_gives_the_weights_of_an_uninterrupted_one(uninterrupted, epochs):
    weights, rows, _ = uninterrupted
    store = MemoryStore(interrupt_after=epochs)
    with pytest.raises(InterruptionError):
        train(config(rules=COSINE), store)
    assert len(store.saved) == epochs
    recorder = Recorder()
    resumed_weights, resumed_rows = train(config(rules=COSINE), store, recorder)
    assert are_equal(resumed_weights, weights)
    assert resumed_rows == rows
    assert recorder.epochs() == [list(range(1, epochs + 1)), *([n] for n in range(epochs + 1, 5))]
    assert recorder.left == [4 - epochs]


def test_a_finished_training_that_is_resumed_gives_its_weights_without_an_epoch(uninterrupted):
    weights, rows, finished = uninterrupted
    store = MemoryStore(finished.saved[-1])
    again, rows_again = train(config(rules=COSINE), store)
    assert are_equal(again, weights)
    assert rows_again == rows
    assert len(store.saved) == 1


def test_a_cosine_schedule_keeps_the_last_epoch(uninterrupted):
    weights, _, store = uninterrupted
    assert are_equal(weights, weights_of(store.saved[-1].variables))
    assert not are_equal(weights, weights_of(store.saved[-2].variables))


def resumed_with_score(store: MemoryStore, best_score: float) -> MemoryStore:
    """Return a store that resumes after epoch 2, with epoch 1 as the best one, at this score."""
    first, second = store.saved[:2]
    state = replace(
        schedule.initial_state(PLATEAU), best_score=best_score, best_epoch=1, since_best=1
    )
    return MemoryStore(replace(second, best=first.variables, state=state))


def test_a_plateau_schedule_keeps_the_best_epoch(uninterrupted):
    store = resumed_with_score(uninterrupted[2], best_score=1.0)  # never exceeded
    weights, rows = train(config(), store)
    assert len(rows) == 4
    assert are_equal(weights, weights_of(uninterrupted[2].saved[0].variables))


def test_a_plateau_schedule_replaces_the_best_epoch_by_a_better_one(uninterrupted):
    store = resumed_with_score(uninterrupted[2], best_score=0.0)
    weights, rows = train(config(), store)
    scores = [row["val_tversky"] for row in rows[2:]]
    best = store.saved[1 + int(np.argmax(scores))]
    assert are_equal(weights, weights_of(best.variables))


@pytest.fixture(scope="module")
def averaged() -> tuple[fused.Weights, list[dict[str, Any]], MemoryStore]:
    """The same training, of which the mean of the last three epochs is kept."""
    store = MemoryStore()
    return *train(config(rules=COSINE, average_epochs=3), store), store


def test_averaging_keeps_the_mean_of_the_last_epochs(uninterrupted, averaged):
    last_weights, rows, _ = uninterrupted
    weights, rows_of_mean, store = averaged
    assert rows_of_mean == rows  # the training is the same, only what is kept differs
    assert [checkpoint.mean is None for checkpoint in store.saved] == [True, False, False, False]
    epochs = [weights_of(checkpoint.variables) for checkpoint in store.saved[1:]]
    for name, values in weights.items():
        for place, value in enumerate(values):
            expected = np.mean([epoch[name][place] for epoch in epochs], axis=0)
            assert np.allclose(value, expected, atol=1e-6), name
    assert not are_equal(weights, last_weights)


def test_a_training_resumed_between_averaged_epochs_keeps_the_same_mean(averaged):
    averaging, store = config(rules=COSINE, average_epochs=3), MemoryStore(interrupt_after=3)
    with pytest.raises(InterruptionError):
        train(averaging, store)
    weights, _ = train(averaging, store)
    assert are_equal(weights, averaged[0])


def test_logged_epochs_count_on_from_the_networks_before():
    recorder = Recorder()
    _, rows = train(
        config(rules=replace(COSINE, epochs=2)), MemoryStore(), recorder, epochs_before=10
    )
    assert recorder.epochs() == [[11], [12]]
    assert [row["epoch"] for row in rows] == [1, 2]


# Several networks


FIRST = config(rules=replace(COSINE, epochs=2), prefix="network_1_")
SECOND = replace(FIRST, prefix="network_2_", epochs=replace(FIRST.epochs, seed=2))


@pytest.fixture(scope="module")
def ensemble() -> tuple[fused.Weights, list[dict[str, Any]], Recorder]:
    """Two networks of two epochs each: weights, history, what was logged."""
    recorder, stores = Recorder(), [MemoryStore(), MemoryStore()]
    return *training.train_ensemble([FIRST, SECOND], DATA, stores, recorder.hooks), recorder


@pytest.mark.parametrize("network", [FIRST, SECOND], ids=["first", "second"])
def test_an_ensemble_holds_each_network_as_if_it_were_trained_alone(ensemble, network):
    weights, history, _ = ensemble
    alone, rows = train(network, MemoryStore())
    assert are_equal(without_prefix(weights, network.prefix), alone)
    losses = [row["loss"] for row in history if network.prefix == f"network_{row['network']}_"]
    assert losses == [row["loss"] for row in rows]


def test_the_history_of_an_ensemble_counts_epochs_on_over_networks(ensemble):
    weights, history, recorder = ensemble
    assert [(row["network"], row["epoch"]) for row in history] == [(1, 1), (1, 2), (2, 3), (2, 4)]
    assert recorder.epochs() == [[1], [2], [3], [4]]
    assert all(name.startswith(("network_1_", "network_2_")) for name in weights)


def test_an_ensemble_interrupted_in_its_second_network_resumes_to_the_same_weights(ensemble):
    expected, history, _ = ensemble
    recorder, stores = Recorder(), [MemoryStore(), MemoryStore(interrupt_after=1)]
    with pytest.raises(InterruptionError):
        training.train_ensemble([FIRST, SECOND], DATA, stores, Recorder().hooks)
    weights, resumed = training.train_ensemble([FIRST, SECOND], DATA, stores, recorder.hooks)
    assert are_equal(weights, expected)
    assert resumed == history
    assert recorder.epochs() == [[1, 2], [3], [4]]


def test_a_refinement_starts_from_the_weights_of_the_network_before_it():
    """With a learning rate near zero it stays there, at twice the image size."""
    first = config(rules=replace(COSINE, epochs=1), prefix="network_1_")
    rules = replace(COSINE, epochs=1, learning_rate=1e-12, min_learning_rate=0.0)
    refinement = replace(
        first, prefix="finer_1_", image_size=32, continues=True,
        epochs=replace(first.epochs, rules=rules),
    )  # fmt: skip
    weights, history = training.train_ensemble(
        [first, refinement], DATA, [MemoryStore(), MemoryStore()], Recorder().hooks
    )
    assert [row["network"] for row in history] == [1, 2]
    before, after = (without_prefix(weights, prefix) for prefix in ("network_1_", "finer_1_"))
    kernels = [name for name in before if name.endswith(("_wide", "_narrow", "_short"))]
    assert len(kernels) == 3 * 8
    for name in kernels:
        assert np.allclose(before[name][0], after[name][0], atol=1e-9), name
