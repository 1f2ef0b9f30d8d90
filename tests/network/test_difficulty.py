"""The demo must have something to learn: the committed phantom against the committed recipe."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipeline import params
from pipeline.adapters import arrays
from pipeline.domain import metrics, phantom, schedule, splits
from pipeline.network import augment, backend, inference, recipe, resunet

COMMITTED = params.load(Path(__file__).parents[2] / "params.yaml")


@cache
def drawn(side: str) -> recipe.Slices:
    """The committed phantom's patients of one side, at the network's size."""
    wanted, dealt = COMMITTED.fetch.phantom, COMMITTED.split
    images, masks, patients = [], [], []
    names = phantom.patient_names(patients=wanted.patients, seed=wanted.seed)
    for number, name in enumerate(names):
        found = splits.split_of(name, salt=dealt.salt, validation=dealt.validation, test=dealt.test)
        if found != side:
            continue
        scan = phantom.draw(name, slices=wanted.slices, size_px=wanted.size_px, seed=wanted.seed)
        factor = wanted.size_px // COMMITTED.train.image_size
        images.append(arrays.shrink_images(scan.images, factor))
        masks.append(arrays.shrink_masks(scan.masks.astype(np.uint8), factor))
        patients.append(np.full(len(scan.images), number))
    found = [np.concatenate(part) for part in (images, masks, patients)]
    return recipe.Slices(*found, has_tumour=found[1].any(axis=(1, 2)))


@pytest.mark.parametrize("epochs", [0, 1])
def test_an_untrained_or_one_epoch_model_scores_under_a_third(epochs):
    train, test = COMMITTED.train, drawn("test")
    backend.make_repeatable(train.seed)
    size = train.image_size
    model = resunet.build(image_size=size, filters=train.filters, height=size, width=size)
    loss = recipe.Loss(missed_weight=train.missed_weight, exponent=train.exponent)
    recipe.compile_model(model, loss=loss, learning_rate=train.learning_rate)
    if epochs:
        rules = schedule.Rules(
            kind="plateau",
            epochs=epochs,
            learning_rate=train.learning_rate,
            patience=1,
            plateau_patience=1,
            plateau_factor=0.5,
            min_learning_rate=0.0,
        )
        list(
            recipe.epochs(
                model, train=drawn("train"), validation=drawn("validation"), batch=train.batch,
                balanced=False, augmentation=augment.Settings(**train.augment.model_dump()),
                loss=loss, rules=rules, state=schedule.State(train.learning_rate), done=0,
                seed=train.seed,
            )
        )  # fmt: skip
    probability = inference.probabilities(model, test.images, batch=train.batch)
    found, truth = probability >= 0.5, test.masks >= 128
    scores = [
        metrics.tversky(
            metrics.overlap(truth[test.patients == one], found[test.patients == one]),
            missed_weight=train.missed_weight,
        )
        for one in np.unique(test.patients)
    ]
    assert np.mean(scores) < 0.3
