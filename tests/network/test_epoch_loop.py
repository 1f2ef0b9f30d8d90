import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import keras
import numpy as np
import pytest
import squares

from pipeline.domain import schedule
from pipeline.errors import GliaflowError
from pipeline.network import augment, backend, epoch_loop, resunet, training_data

SIDE = 16
RULES = schedule.Rules(
    kind="plateau",
    epochs=100,
    learning_rate=0.01,
    patience=100,
    plateau_patience=2,
    plateau_factor=0.5,
    min_learning_rate=1e-5,
)
OFF = augment.Augmentation(flip=0, rotate_degrees=0, scale=0, shift=0, intensity=0)
FULL = augment.Augmentation(flip=0.5, rotate_degrees=15, scale=0.1, shift=0.05, intensity=0.3)
PLAIN = epoch_loop.EpochConfig(
    batch=4,  # of ten slices, two are left out of each epoch
    balanced=False,
    augmentation=OFF,
    loss=epoch_loop.LossConfig(missed_weight=0.7, exponent=0.75),
    rules=RULES,
    seed=3,
)
AUGMENTED = replace(PLAIN, augmentation=FULL)
SLICES = squares.make(patients=[0, 0, 0, 1, 1, 1, 2, 2, 3, 3], side=SIDE, square=7, last=8)


@dataclass(frozen=True)
class Run:
    """Results, schedule states and variables, one of each per epoch."""

    rows: list[epoch_loop.EpochResult]
    states: list[schedule.State]
    variables: list[list[np.ndarray]]


def build() -> keras.Model:
    backend.make_repeatable(1)
    model = resunet.build(image_size=SIDE, filters=(2, 2, 2, 2, 2), height=SIDE, width=SIDE)
    epoch_loop.compile_model(model, loss=PLAIN.loss, learning_rate=RULES.learning_rate)
    return model


def epochs(
    model: keras.Model,
    *,
    last: int,
    config: epoch_loop.EpochConfig = PLAIN,
    train: training_data.SliceSource = SLICES,
    validation: training_data.SliceSource = SLICES,
    state: schedule.State | None = None,
    done: int = 0,
) -> Iterator[tuple[epoch_loop.EpochResult, schedule.State]]:
    """Iterate over epochs of a training that ends with epoch `last`."""
    return epoch_loop.run_epochs(
        model,
        train=train,
        validation=validation,
        config=replace(config, rules=replace(config.rules, epochs=last)),
        state=state or schedule.State(RULES.learning_rate),
        done=done,
    )


def run(model: keras.Model, **options) -> Run:
    collected = [
        (row, state, epoch_loop.get_variables(model)) for row, state in epochs(model, **options)
    ]
    rows, states, variables = (list(column) for column in zip(*collected, strict=True))
    return Run(rows, states, variables)


def with_rules(**changes) -> epoch_loop.EpochConfig:
    return replace(PLAIN, rules=replace(RULES, **changes))


def are_equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def compiled() -> tuple[keras.Model, list[np.ndarray]]:
    """A network that tests share, and its initial variables."""
    model = build()
    return model, epoch_loop.get_variables(model)


@pytest.fixture(scope="module")
def uninterrupted(compiled) -> Run:
    """Four epochs with augmentation."""
    model, initial = compiled
    epoch_loop.set_variables(model, initial)
    return run(model, last=4, config=AUGMENTED)


@pytest.fixture(scope="module")
def interrupted() -> Run:
    """The first two of these epochs, by another network with the same initial variables."""
    return run(build(), last=2, config=AUGMENTED)


@pytest.fixture
def network(compiled) -> keras.Model:
    model, initial = compiled
    epoch_loop.set_variables(model, initial)
    return model


def predict_everywhere(network: keras.Model, *, logit: float) -> keras.Model:
    """Shift the last bias so far that every pixel gets the same probability."""
    network.get_layer("probability").bias.assign([logit])
    return network


def test_two_trainings_with_the_same_seed_give_equal_weights(uninterrupted, interrupted):
    assert interrupted.rows == uninterrupted.rows[:2]
    assert are_equal(interrupted.variables[0], uninterrupted.variables[0])
    assert are_equal(interrupted.variables[1], uninterrupted.variables[1])


def test_training_changes_weights_each_epoch(uninterrupted):
    for before, after in itertools.pairwise(uninterrupted.variables):
        assert not are_equal(before, after)


def test_a_resumed_training_gives_the_same_results_as_an_uninterrupted_one(
    uninterrupted, interrupted
):
    rebuilt = build()
    epoch_loop.set_variables(rebuilt, interrupted.variables[-1])
    rest = run(rebuilt, last=4, done=2, state=interrupted.states[-1], config=AUGMENTED)
    assert rest.rows == uninterrupted.rows[2:]
    assert rest.states == uninterrupted.states[2:]
    assert are_equal(rest.variables[-1], uninterrupted.variables[-1])


def test_another_seed_takes_other_steps(network):
    initial = epoch_loop.get_variables(network)
    first = run(network, last=1, config=replace(PLAIN, seed=3)).variables[-1]
    epoch_loop.set_variables(network, initial)
    second = run(network, last=1, config=replace(PLAIN, seed=4)).variables[-1]
    assert not are_equal(first, second)


def test_set_variables_restores_optimizer_and_batch_statistics_too(network):
    before = epoch_loop.get_variables(network)
    run(network, last=1)
    assert not are_equal(epoch_loop.get_variables(network), before)
    epoch_loop.set_variables(network, before)
    assert are_equal(epoch_loop.get_variables(network), before)


def test_variables_are_copies_that_training_does_not_change(network):
    variables = epoch_loop.get_variables(network)
    before = [value.copy() for value in variables]
    run(network, last=1)
    assert are_equal(variables, before)


def test_a_running_mean_is_extended_one_set_at_a_time():
    sets = [[np.full(3, value, np.float32), np.int64(value)] for value in (1, 2, 6)]
    mean = None
    for count, values in enumerate(sets, start=1):
        mean = epoch_loop.running_mean(mean, values, count)
    assert mean is not None
    assert mean[0] == pytest.approx([3, 3, 3])
    assert mean[0].dtype == np.float32
    assert mean[1] == 6  # a count of steps is that of the last set
    assert sets[0][0] == pytest.approx([1, 1, 1])  # nothing is changed in place


def test_rows_are_numbered_and_their_values_in_range(uninterrupted):
    assert [row.epoch for row in uninterrupted.rows] == [1, 2, 3, 4]
    for row in uninterrupted.rows:
        assert 0 < row.loss <= 1
        assert 0 < row.val_loss <= 1
        assert 0 <= row.val_tversky <= 1
        assert row.learning_rate == RULES.learning_rate


def test_training_learns_the_squares(network):
    result = run(network, last=40, config=with_rules(plateau_patience=100))
    assert result.rows[-1].loss < result.rows[0].loss
    assert result.states[-1].best_score > 0.7  # tumour everywhere scores 0.44


def test_scores_of_a_network_that_predicts_tumour_everywhere(network):
    row = run(predict_everywhere(network, logit=50), last=1).rows[0]
    # A patient's square is 49 of 256 pixels per slice: 49 / (49 + 0.3 * 207).
    assert row.val_tversky == pytest.approx(49 / 111.1)
    # Two batches of four slices, one of two, each smoothed by one pixel.
    of_four = 1 - (4 * 49 + 1) / (4 * 111.1 + 1)
    of_two = 1 - (2 * 49 + 1) / (2 * 111.1 + 1)
    assert row.val_loss == pytest.approx((2 * of_four**0.75 + of_two**0.75) / 3)


@pytest.mark.parametrize("layer", ["probability", "bottom_wide"])
def test_a_loss_that_is_not_finite_is_refused_with_the_learning_rate(network, layer):
    kernel = network.get_layer(layer).kernel
    kernel.assign(np.full(kernel.shape, math.nan))
    with pytest.raises(GliaflowError) as refused:
        run(network, last=4)
    message = str(refused.value)
    assert "the loss of epoch 1 is nan" in message
    assert "train.learning_rate (it was 0.01)" in message


def test_a_training_that_never_predicts_tumour_is_refused_after_its_last_epoch(network):
    results = epochs(predict_everywhere(network, logit=-50), last=3)
    assert [next(results)[0].val_tversky for _ in range(3)] == [0.0, 0.0, 0.0]
    with pytest.raises(GliaflowError) as refused:
        next(results)
    message = str(refused.value)
    assert "the validation Tversky never got past 0.01" in message
    assert "0.0000" in message  # the best score
    assert "train.learning_rate" in message


def test_a_training_that_never_predicts_tumour_is_refused_after_early_stopping(network):
    results = epochs(predict_everywhere(network, logit=-50), last=50, config=with_rules(patience=2))
    with pytest.raises(GliaflowError, match="never got past"):
        list(results)


def test_a_training_that_predicted_tumour_once_is_not_refused(network):
    before = schedule.State(
        RULES.learning_rate, best_score=0.5, best_epoch=1, since_best=1, since_fall=1
    )
    result = run(predict_everywhere(network, logit=-50), last=3, done=2, state=before)
    assert result.rows[-1].val_tversky == 0.0
    assert result.states[-1].best_score == 0.5


def test_predicting_nothing_is_right_for_patients_without_tumour(network):
    healthy = replace(SLICES, masks=np.zeros_like(SLICES.masks))
    row = run(predict_everywhere(network, logit=-50), last=1, validation=healthy).rows[0]
    assert row.val_tversky == 1.0
    assert row.val_loss == pytest.approx(1e-6**0.75, rel=1e-3)


def test_training_stops_when_patience_is_exhausted(network):
    # The score is constant: epoch 1 is the best, and epochs 2 and 3 are not better.
    result = run(predict_everywhere(network, logit=50), last=50, config=with_rules(patience=2))
    assert [row.epoch for row in result.rows] == [1, 2, 3]
    assert result.states[-1].best_epoch == 1


def test_the_learning_rate_falls_on_a_plateau(network):
    config = with_rules(plateau_patience=1, min_learning_rate=0.003)
    result = run(predict_everywhere(network, logit=50), last=5, config=config)
    assert [row.learning_rate for row in result.rows] == [0.01, 0.01, 0.005, 0.003, 0.003]
    assert float(network.optimizer.learning_rate) == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("done", "since_best"), [(4, 0), (2, RULES.patience)], ids=["last epoch", "patience exhausted"]
)
def test_a_finished_training_takes_no_further_step(network, done, since_best):
    before = epoch_loop.get_variables(network)
    state = schedule.State(RULES.learning_rate, best_score=0.5, best_epoch=1, since_best=since_best)
    assert list(epochs(network, last=4, done=done, state=state)) == []
    assert are_equal(epoch_loop.get_variables(network), before)


def test_slices_on_the_device_train_to_the_same_weights(network):
    initial = epoch_loop.get_variables(network)
    from_host = run(network, last=2, config=AUGMENTED)
    epoch_loop.set_variables(network, initial)
    slices = SLICES.on_device()
    on_device = run(network, last=2, config=AUGMENTED, train=slices, validation=slices)
    assert on_device.rows == from_host.rows
    assert are_equal(on_device.variables[-1], from_host.variables[-1])


def test_scores_are_of_patients_over_all_their_slices(network):
    """Tumour is predicted everywhere; the patients' truths are empty, half, and twice all."""
    masks = np.zeros_like(SLICES.masks)
    masks[3:6, :8] = 255  # half of the patient's pixels
    masks[6:] = 255
    validation = replace(SLICES, masks=masks)
    row = run(predict_everywhere(network, logit=50), last=1, validation=validation).rows[0]
    assert row.val_tversky == pytest.approx((0 + 0.5 / (0.5 + 0.3 * 0.5) + 1 + 1) / 4)


def test_a_balanced_training_takes_fewer_steps(network):
    """Two slices with tumour and two without make one step of four; ten slices make two."""
    source = replace(SLICES, has_tumour=np.arange(10) < 2)
    steps_before = int(network.optimizer.iterations)
    run(network, last=1, config=replace(PLAIN, balanced=True), train=source)
    assert int(network.optimizer.iterations) - steps_before == 1
    run(network, last=1, config=PLAIN, train=source)
    assert int(network.optimizer.iterations) - steps_before == 3


def test_a_cosine_schedule_keeps_the_last_epoch(network):
    config = with_rules(kind="cosine", epochs=4, patience=1, plateau_patience=1)
    state = schedule.initial_state(config.rules)
    result = run(network, last=4, config=config, state=state)
    assert result.states[-1].best_epoch == 4
    rates = [row.learning_rate for row in result.rows]
    assert rates == [schedule.cosine_rate(number, rules=config.rules) for number in (1, 2, 3, 4)]
