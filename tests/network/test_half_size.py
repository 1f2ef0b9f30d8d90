"""A training that begins on slices of half the size. Slices here are made of blocks of 2 x 2 equal
pixels, so that half the size says all that is in them.
"""

from collections.abc import Sequence

import keras
import numpy as np
import pytest

from pipeline.domain import schedule
from pipeline.network import augment, backend, recipe, resunet

SMALL, SIDE = 16, 32
LOSS = recipe.Loss(missed_weight=0.5, exponent=0.75)
RULES = schedule.Rules(
    kind="cosine", epochs=4, learning_rate=0.01, patience=9, plateau_patience=9,
    plateau_factor=0.5, min_learning_rate=1e-5,
)  # fmt: skip
AUGMENTED = augment.Settings(flip=0.5, rotate_degrees=15, scale=0.1, shift=0.05, intensity=0.3)


def slices(side: int) -> recipe.Slices:
    """Eight slices of two patients, each with a bright square that is the tumour."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 100, (8, SMALL, SMALL, 3), dtype=np.uint8)
    masks = np.zeros((8, SMALL, SMALL), np.uint8)
    masks[:, 4:11, 4:11] = 255
    images[masks > 0] = 250
    images, masks = (
        part.repeat(side // SMALL, 1).repeat(side // SMALL, 2) for part in (images, masks)
    )
    return recipe.Slices(images, masks, np.arange(8) % 2, has_tumour=np.ones(8, bool))


def network(side: int) -> keras.Model:
    backend.make_repeatable(1)
    model = resunet.build(image_size=side, filters=(2, 2, 2, 2, 2), height=side, width=side)
    recipe.compile_model(model, loss=LOSS, learning_rate=0.01)
    return model


def trained(
    model: keras.Model,
    *,
    small_epochs: int = 0,
    until: int = RULES.epochs,
    done: int = 0,
    state: schedule.State | None = None,
) -> tuple[list[recipe.Epoch], schedule.State]:
    shown, found = slices(model.inputs[0].shape[1]), []
    steps = recipe.epochs(
        model, train=shown, validation=shown, batch=4, balanced=False, augmentation=AUGMENTED,
        loss=LOSS, rules=RULES, state=state or schedule.start(RULES), done=done, seed=3,
        start=recipe.Start(network(SMALL), small_epochs) if small_epochs else None,
    )  # fmt: skip
    for epoch, after in steps:
        found.append(epoch)
        state = after
        if epoch.epoch == until:
            break
    assert state is not None
    return found, state


def are_equal(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_first_epochs_are_those_of_a_training_at_half_the_size():
    small, model = network(SMALL), network(SIDE)
    alone, _ = trained(small, until=2)
    first, _ = trained(model, small_epochs=2, until=2)
    assert first == alone
    assert are_equal(recipe.variables(model), recipe.variables(small))


def test_the_epochs_after_them_are_at_the_full_size():
    model = network(SIDE)
    rows, _ = trained(model, small_epochs=2)
    small, _ = trained(network(SMALL))
    assert rows[:2] == small[:2]
    assert rows[2] != small[2]
    assert [row.learning_rate for row in rows] == [row.learning_rate for row in small]


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_training_that_was_ended_goes_on_as_it_would_have(done):
    straight, other = network(SIDE), network(SIDE)
    rows, _ = trained(straight, small_epochs=2)
    first, state = trained(other, small_epochs=2, until=done)
    rebuilt = network(SIDE)
    recipe.restore(rebuilt, recipe.variables(other))
    rest, _ = trained(rebuilt, small_epochs=2, done=done, state=state)
    assert first + rest == rows
    assert are_equal(recipe.variables(rebuilt), recipe.variables(straight))
