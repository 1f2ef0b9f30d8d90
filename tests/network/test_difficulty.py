"""The demo must be learnable but not trivial: the committed phantom and parameters."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipeline import params
from pipeline.adapters.scans import arrays
from pipeline.domain import metrics, phantom, schedule, splits
from pipeline.network import backend, epoch_loop, inference, resunet, training, training_data

COMMITTED = params.load(Path(__file__).parents[2] / "params.yaml")


@cache
def slices_of(split: str) -> training_data.SlicesInMemory:
    """Generate the committed phantom's patients of a split, at the network's image size."""
    section, shares = COMMITTED.fetch.phantom, COMMITTED.split
    factor = section.size_px // COMMITTED.train.image_size
    images, masks, patients = [], [], []
    names = phantom.patient_names(patients=section.patients, seed=section.seed)
    for number, name in enumerate(names):
        split_of_patient = splits.split_of(
            name, salt=shares.salt, validation=shares.validation, test=shares.test
        )
        if split_of_patient != split:
            continue
        scan = phantom.generate(
            name, slices=section.slices, size_px=section.size_px, seed=section.seed
        )
        images.append(arrays.shrink_images(scan.images, factor))
        masks.append(arrays.shrink_masks(scan.masks.astype(np.uint8), factor))
        patients.append(np.full(len(scan.images), number))
    mask = np.concatenate(masks)
    return training_data.SlicesInMemory(
        np.concatenate(images), mask, np.concatenate(patients), has_tumour=mask.any(axis=(1, 2))
    )


@pytest.mark.parametrize("epochs", [0, 1])
def test_an_untrained_or_one_epoch_model_scores_under_a_third(epochs):
    section, test = COMMITTED.train, slices_of("test")
    backend.make_repeatable(section.seed)
    size = section.image_size
    model = resunet.build(image_size=size, filters=section.filters, height=size, width=size)
    (network,) = training.ensemble(section)
    config = replace(network.epochs, rules=replace(network.epochs.rules, epochs=epochs))
    epoch_loop.compile_model(model, loss=config.loss, learning_rate=section.learning_rate)
    if epochs:
        for _ in epoch_loop.run_epochs(
            model,
            train=slices_of("train"),
            validation=slices_of("validation"),
            config=config,
            state=schedule.initial_state(config.rules),
            done=0,
        ):
            pass
    probability = inference.probabilities(model, test.images, batch=section.batch)
    predicted, truth = probability >= 0.5, test.masks >= 128
    scores = [
        metrics.tversky(
            metrics.overlap(truth[test.patients == patient], predicted[test.patients == patient]),
            missed_weight=section.missed_weight,
        )
        for patient in np.unique(test.patients)
    ]
    assert np.mean(scores) < 0.3
