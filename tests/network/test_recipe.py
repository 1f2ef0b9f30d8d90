import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import keras
import numpy as np
import pytest

from pipeline.domain import schedule
from pipeline.errors import GliaflowError
from pipeline.network import augment, backend, recipe, resunet

SIDE = 16
RATE = 0.01
LOSS = recipe.Loss(missed_weight=0.7, exponent=0.75)
RULES = schedule.Rules(
    kind="plateau",
    epochs=100,
    learning_rate=RATE,
    patience=100,
    plateau_patience=2,
    plateau_factor=0.5,
    min_learning_rate=1e-5,
)
PLAIN = augment.Settings(flip=0, rotate_degrees=0, scale=0, shift=0, intensity=0)
ALL = augment.Settings(flip=0.5, rotate_degrees=15, scale=0.1, shift=0.05, intensity=0.3)


@dataclass(frozen=True)
class Run:
    """What a training left: its rows, and variables and schedule after each epoch."""

    rows: list[recipe.Epoch]
    states: list[schedule.State]
    variables: list[list[np.ndarray]]


def squares() -> recipe.Slices:
    """Ten slices of four patients, each with a bright square that is the tumour."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 100, (10, SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros((10, SIDE, SIDE), np.uint8)
    for mask, (top, left) in zip(masks, generator.integers(1, 8, (10, 2)), strict=True):
        mask[top : top + 7, left : left + 7] = 255
    images[masks > 0] = 250
    patients = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3, 3])
    return recipe.Slices(images, masks, patients, has_tumour=np.ones(10, bool))


SLICES = squares()


def made() -> keras.Model:
    backend.make_repeatable(1)
    model = resunet.build(image_size=SIDE, filters=(2, 2, 2, 2, 2), height=SIDE, width=SIDE)
    recipe.compile_model(model, loss=LOSS, learning_rate=RATE)
    return model


def epochs(
    model: keras.Model,
    *,
    last: int,
    validation: recipe.Slices = SLICES,
    augmentation: augment.Settings = PLAIN,
    rules: schedule.Rules = RULES,
    state: schedule.State | None = None,
    done: int = 0,
    seed: int = 3,
    train: recipe.Source = SLICES,
    balanced: bool = False,
) -> Iterator[tuple[recipe.Epoch, schedule.State]]:
    return recipe.epochs(
        model,
        train=train,
        validation=validation,
        batch=4,  # ten slices: two are left for another epoch's order
        balanced=balanced,
        augmentation=augmentation,
        loss=LOSS,
        rules=replace(rules, epochs=last),
        state=state or schedule.State(RATE),
        done=done,
        seed=seed,
    )


def trained(model: keras.Model, **settings) -> Run:
    found = [(row, state, recipe.variables(model)) for row, state in epochs(model, **settings)]
    rows, states, variables = (list(column) for column in zip(*found, strict=True))
    return Run(rows, states, variables)


def are_equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def compiled() -> tuple[keras.Model, list[np.ndarray]]:
    """One network for the tests that need any, and how it was when it was new."""
    model = made()
    return model, recipe.variables(model)


@pytest.fixture(scope="module")
def straight(compiled) -> Run:
    """Four epochs in one go, slices changed each time."""
    model, new = compiled
    recipe.restore(model, new)
    return trained(model, last=4, augmentation=ALL)


@pytest.fixture(scope="module")
def halfway() -> Run:
    """The same from the start in a network of its own, ended after two."""
    return trained(made(), last=2, augmentation=ALL)


@pytest.fixture
def network(compiled) -> keras.Model:
    model, new = compiled
    recipe.restore(model, new)
    return model


def say(network: keras.Model, *, logit: float) -> keras.Model:
    """The network with its last bias so far out that every pixel gets one probability."""
    network.get_layer("probability").bias.assign([logit])
    return network


def test_two_trainings_with_one_seed_give_equal_weights(straight, halfway):
    assert halfway.rows == straight.rows[:2]
    assert are_equal(halfway.variables[0], straight.variables[0])
    assert are_equal(halfway.variables[1], straight.variables[1])


def test_training_changes_weights_each_epoch(straight):
    for before, after in zip(straight.variables, straight.variables[1:], strict=False):
        assert not are_equal(before, after)


def test_a_training_that_was_ended_goes_on_as_it_would_have(straight, halfway):
    rebuilt = made()
    recipe.restore(rebuilt, halfway.variables[-1])
    rest = trained(rebuilt, last=4, done=2, state=halfway.states[-1], augmentation=ALL)
    assert rest.rows == straight.rows[2:]
    assert rest.states == straight.states[2:]
    assert are_equal(rest.variables[-1], straight.variables[-1])


def test_another_seed_takes_other_steps(network):
    new = recipe.variables(network)
    one = trained(network, last=1, seed=3).variables[-1]
    recipe.restore(network, new)
    other = trained(network, last=1, seed=4).variables[-1]
    assert not are_equal(one, other)


def test_restore_puts_back_optimizer_and_batch_statistics_too(network):
    before = recipe.variables(network)
    trained(network, last=1)
    assert not are_equal(recipe.variables(network), before)
    recipe.restore(network, before)
    assert are_equal(recipe.variables(network), before)


def test_variables_are_copies_that_training_does_not_reach(network):
    taken = recipe.variables(network)
    before = [value.copy() for value in taken]
    trained(network, last=1)
    assert are_equal(taken, before)


def test_a_mean_of_variables_grows_by_one_set_at_a_time():
    sets = [[np.full(3, value, np.float32), np.int64(value)] for value in (1, 2, 6)]
    mean = None
    for count, one in enumerate(sets, start=1):
        mean = recipe.mean_of(mean, one, count)
    assert mean is not None
    assert mean[0] == pytest.approx([3, 3, 3])
    assert mean[0].dtype == np.float32
    assert mean[1] == 6  # a count of steps is the last one's
    assert sets[0][0] == pytest.approx([1, 1, 1])  # nothing is changed in place


def test_rows_are_numbered_and_their_numbers_in_range(straight):
    assert [row.epoch for row in straight.rows] == [1, 2, 3, 4]
    for row in straight.rows:
        assert 0 < row.loss <= 1
        assert 0 < row.val_loss <= 1
        assert 0 <= row.val_tversky <= 1
        assert row.learning_rate == RATE


def test_training_finds_the_squares(network):
    run = trained(network, last=40, rules=replace(RULES, plateau_patience=100))
    assert run.rows[-1].loss < run.rows[0].loss
    assert run.states[-1].best_score > 0.7  # to call every pixel tumour gives 0.44


def test_scores_of_a_network_that_calls_every_pixel_tumour(network):
    row = trained(say(network, logit=50), last=1).rows[0]
    # A patient's square is 49 of 256 pixels a slice: 49 / (49 + 0.3 * 207).
    assert row.val_tversky == pytest.approx(49 / 111.1)
    # Two batches of four slices, one of two, each smoothed by one pixel.
    of_four = 1 - (4 * 49 + 1) / (4 * 111.1 + 1)
    of_two = 1 - (2 * 49 + 1) / (2 * 111.1 + 1)
    assert row.val_loss == pytest.approx((2 * of_four**0.75 + of_two**0.75) / 3)


@pytest.mark.parametrize("layer", ["probability", "bottom_wide"])
def test_a_loss_that_is_not_finite_names_the_learning_rate(network, layer):
    kernel = network.get_layer(layer).kernel
    kernel.assign(np.full(kernel.shape, math.nan))
    with pytest.raises(GliaflowError) as ended:
        trained(network, last=4)
    said = str(ended.value)
    assert "the loss of epoch 1 is nan" in said
    assert "train.learning_rate (it was 0.01)" in said


def test_a_score_that_never_leaves_the_floor_is_a_collapse(network):
    found = epochs(say(network, logit=-50), last=3)
    assert [next(found)[0].val_tversky for _ in range(3)] == [0.0, 0.0, 0.0]
    with pytest.raises(GliaflowError) as ended:
        next(found)
    said = str(ended.value)
    assert "the validation Tversky never got past 0.01" in said
    assert "0.0000" in said  # the best there was
    assert "train.learning_rate" in said


def test_a_collapse_is_told_as_well_when_early_stopping_ends_it(network):
    with pytest.raises(GliaflowError, match="never got past"):
        list(epochs(say(network, logit=-50), last=50, rules=replace(RULES, patience=2)))


def test_a_training_that_got_past_the_floor_once_is_no_collapse(network):
    before = schedule.State(RATE, best_score=0.5, best_epoch=1, since_best=1, since_fall=1)
    run = trained(say(network, logit=-50), last=3, done=2, state=before)
    assert run.rows[-1].val_tversky == 0.0
    assert run.states[-1].best_score == 0.5


def test_silence_on_patients_without_tumour_is_right_and_no_collapse(network):
    healthy = replace(SLICES, masks=np.zeros_like(SLICES.masks))
    row = trained(say(network, logit=-50), last=1, validation=healthy).rows[0]
    assert row.val_tversky == 1.0
    assert row.val_loss == pytest.approx(1e-6**0.75, rel=1e-3)


def test_early_stopping_stops_when_patience_is_spent(network):
    # One score for good: epoch 1 is the best, and epochs 2 and 3 are no better.
    run = trained(say(network, logit=50), last=50, rules=replace(RULES, patience=2))
    assert [row.epoch for row in run.rows] == [1, 2, 3]
    assert run.states[-1].best_epoch == 1


def test_the_learning_rate_falls_on_a_plateau(network):
    rules = replace(RULES, plateau_patience=1, min_learning_rate=0.003)
    run = trained(say(network, logit=50), last=5, rules=rules)
    assert [row.learning_rate for row in run.rows] == [0.01, 0.01, 0.005, 0.003, 0.003]
    assert float(network.optimizer.learning_rate) == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("done", "since_best"), [(4, 0), (2, RULES.patience)], ids=["last epoch", "patience spent"]
)
def test_a_training_that_is_done_takes_no_further_step(network, done, since_best):
    before = recipe.variables(network)
    state = schedule.State(RATE, best_score=0.5, best_epoch=1, since_best=since_best)
    assert list(epochs(network, last=4, done=done, state=state)) == []
    assert are_equal(recipe.variables(network), before)


def test_slices_in_memory_are_handed_on_a_step_at_a_time():
    first, second = SLICES.parts(np.array([[1, 2], [5, 0]]))
    assert np.array_equal(second.images, SLICES.images[[5, 0]])
    assert np.array_equal(first.masks, SLICES.masks[[1, 2]])
    assert first.chosen.tolist() == second.chosen.tolist() == [[0, 1]]


def test_slices_on_the_device_train_to_the_same_weights(network):
    new = recipe.variables(network)
    fed = trained(network, last=2, augmentation=ALL)
    recipe.restore(network, new)
    placed = SLICES.placed()
    kept = trained(network, last=2, augmentation=ALL, train=placed, validation=placed)
    assert kept.rows == fed.rows
    assert are_equal(kept.variables[-1], fed.variables[-1])


def test_scores_are_of_patients_over_all_their_slices(network):
    """Every pixel is called tumour; the first patient's truth is empty, then half, then all."""
    masks = np.zeros_like(SLICES.masks)
    masks[3:6, :8] = 255  # half of the patient's pixels
    masks[6:] = 255
    row = trained(say(network, logit=50), last=1, validation=replace(SLICES, masks=masks)).rows[0]
    assert row.val_tversky == pytest.approx((0 + 0.5 / (0.5 + 0.3 * 0.5) + 1 + 1) / 4)


def test_a_balanced_epoch_shows_as_many_slices_without_tumour_as_with():
    source = replace(SLICES, has_tumour=np.arange(10) < 3)
    generator = np.random.default_rng(0)
    orders = [recipe.epoch_order(source, generator, balanced=True) for _ in range(20)]
    assert all(set(order) >= {0, 1, 2} and len(set(order)) == len(order) == 6 for order in orders)
    assert set(np.concatenate(orders)) == set(range(10))


def test_a_balanced_epoch_takes_all_where_few_are_without_tumour():
    source = replace(SLICES, has_tumour=np.arange(10) < 8)
    order = recipe.epoch_order(source, np.random.default_rng(0), balanced=True)
    assert sorted(order) == list(range(10))


def test_a_cosine_schedule_keeps_the_last_epoch(network):
    rules = replace(RULES, kind="cosine", patience=1, plateau_patience=1)
    own = replace(rules, epochs=4)
    run = trained(network, last=4, rules=rules, state=schedule.start(own))
    assert run.states[-1].best_epoch == 4
    rates = [row.learning_rate for row in run.rows]
    assert rates == [schedule.cosine_rate(number, rules=own) for number in (1, 2, 3, 4)]
