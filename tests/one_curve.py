"""Trains a small network on drawn squares and prints its curve as JSON: one process, one backend.

And the first epoch of another training, with every switch on: from the second on rounding leads
such a small network astray.
"""

import json
from dataclasses import replace

import numpy as np

from pipeline.domain import schedule
from pipeline.network import augment, backend, lean, recipe

SIDE, BATCH, FILTERS, RATE = 32, 8, (4, 4, 4, 4, 4), 0.005
LOSS = recipe.Loss(missed_weight=0.7, exponent=0.75)
CHANGED = augment.Settings(0.5, 15, 0.1, 0.05, 0.3, 0.2)
RULES = schedule.Rules(
    kind="cosine", epochs=6, learning_rate=RATE, patience=9, plateau_patience=9,
    plateau_factor=0.5, min_learning_rate=1e-5,
)  # fmt: skip


def squares() -> recipe.Slices:
    """44 slices of nine patients, each with a bright square that is the tumour."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 100, (44, SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros((44, SIDE, SIDE), np.uint8)
    for mask, (top, left) in zip(masks, generator.integers(1, 20, (44, 2)), strict=True):
        mask[top : top + 9, left : left + 9] = 255
    images[masks > 0] = 250
    return recipe.Slices(images, masks, np.arange(44) // 5, has_tumour=np.ones(44, bool))


def network(loss: recipe.Loss):
    """Kernels drawn by numpy, so that every backend begins with the same weights."""
    model, generator = lean.build(image_size=SIDE, filters=FILTERS), np.random.default_rng(5)
    for variable in model.weights:
        if "kernel" in variable.path:
            variable.assign(generator.normal(size=variable.shape) * 0.2)
    recipe.compile_model(model, loss=loss, learning_rate=RATE)
    return model


def train(loss: recipe.Loss, augmentation: augment.Settings, rules: schedule.Rules):
    """Loss, validation loss and validation Tversky of each epoch."""
    slices = squares().placed() if backend.keeps_slices_on_device() else squares()
    found = recipe.epochs(
        network(loss),
        train=slices,
        validation=slices,
        batch=BATCH,
        balanced=False,
        augmentation=augmentation,
        loss=loss,
        rules=rules,
        state=schedule.start(rules),
        done=0,
        seed=3,
    )
    return [(row.loss, row.val_loss, row.val_tversky) for row, _ in found]


def main() -> None:
    backend.make_repeatable(1)
    found = {"devices": backend.use_all_devices(BATCH)}
    found["curve"] = train(LOSS, CHANGED, RULES)
    everything = replace(LOSS, by_slice=0.3), replace(CHANGED, paste=0.5), replace(RULES, epochs=1)
    found["everything"] = train(*everything)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
