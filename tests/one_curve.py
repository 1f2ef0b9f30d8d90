"""Train a small network on slices with squares and print its history as JSON.

For tests that compare backends and numbers of devices: one process, one of each. Prints

- `devices`: how many are in use.
- `curve`: loss, validation loss and validation Tversky of each epoch.
- `everything`: the same of the first epoch of another training, with every option on. Later
  epochs are left out: rounding drives two trainings of such a small network apart.
"""

import json
from dataclasses import replace

import keras
import numpy as np
import squares

from pipeline.domain import schedule
from pipeline.network import augment, backend, epoch_loop, fused
from pipeline.network.epoch_loop import EpochConfig

SIDE, FILTERS = 32, (4, 4, 4, 4, 4)
RULES = schedule.Rules(
    kind="cosine", epochs=6, learning_rate=0.005, patience=9, plateau_patience=9,
    plateau_factor=0.5, min_learning_rate=1e-5,
)  # fmt: skip
CONFIG = EpochConfig(
    batch=8,
    balanced=False,
    augmentation=augment.Augmentation(
        flip=0.5, rotate_degrees=15, scale=0.1, shift=0.05, intensity=0.3, missing=0.2
    ),
    loss=epoch_loop.LossConfig(missed_weight=0.7, exponent=0.75),
    rules=RULES,
    seed=3,
)
EVERYTHING = replace(
    CONFIG,
    augmentation=replace(CONFIG.augmentation, paste=0.5),
    loss=replace(CONFIG.loss, by_slice=0.3),
    rules=replace(RULES, epochs=1),
)


def network(config: EpochConfig) -> keras.Model:
    """Build a network with kernels from numpy, the same under every backend."""
    model, rng = fused.build(image_size=SIDE, filters=FILTERS), np.random.default_rng(5)
    for variable in model.weights:
        if "kernel" in variable.path:
            variable.assign(rng.normal(size=variable.shape) * 0.2)
    epoch_loop.compile_model(model, loss=config.loss, learning_rate=config.rules.learning_rate)
    return model


def train(config: EpochConfig) -> list[tuple[float, float, float]]:
    """Return loss, validation loss and validation Tversky of each epoch."""
    slices = squares.make(
        patients=[number // 5 for number in range(44)], side=SIDE, square=9, last=20
    )
    if backend.keeps_slices_on_device():
        slices = slices.on_device()
    epochs = epoch_loop.run_epochs(
        network(config),
        train=slices,
        validation=slices,
        config=config,
        state=schedule.initial_state(config.rules),
        done=0,
    )
    return [(epoch.loss, epoch.val_loss, epoch.val_tversky) for epoch, _ in epochs]


def main() -> None:
    backend.make_repeatable(1)
    devices = backend.use_all_devices(CONFIG.batch)
    result = {"devices": devices, "curve": train(CONFIG), "everything": train(EVERYTHING)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
