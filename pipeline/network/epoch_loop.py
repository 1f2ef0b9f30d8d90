"""Run training epochs with compiled steps; yield the result and state of each.

N slices, S x S pixels. Does not know files or checkpoints: the caller stores what is yielded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import keras
import numpy as np

from pipeline.domain import metrics, schedule
from pipeline.errors import GliaflowError
from pipeline.network import augment, backend, steps, training_data
from pipeline.network.losses import FocalTversky

COLLAPSED = 0.01  # a training whose validation Tversky never reaches this has learnt nothing


@dataclass(frozen=True)
class LossConfig:
    """Parameters of the focal Tversky loss, as `losses.focal_tversky` takes them."""

    missed_weight: float
    exponent: float
    by_slice: float = 0.0


@dataclass(frozen=True)
class EpochConfig:
    """Settings of the epoch loop.

    batch: slices per step; slices that do not fill a last batch are left out of the epoch.
    balanced: each epoch takes all slices with tumour and a new sample of as many without;
        otherwise all slices.
    rules: of the schedule, with the number of its last epoch.
    seed: together with an epoch's number, it determines the order of the epoch's slices and
        their augmentation.
    """

    batch: int
    balanced: bool
    augmentation: augment.Augmentation
    loss: LossConfig
    rules: schedule.Rules
    seed: int


@dataclass(frozen=True)
class EpochResult:
    """One row of history. Scores are of validation patients, at the network's image size.

    learning_rate: the rate that the epoch was trained with.
    """

    epoch: int
    loss: float
    val_loss: float
    val_tversky: float
    learning_rate: float


def compile_model(model: keras.Model, *, loss: LossConfig, learning_rate: float) -> None:
    """Give the model its loss and optimizer.

    XLA compiles the steps, except under TensorFlow on a CPU, where it halves the speed.
    """
    on_tensorflow_cpu = keras.backend.backend() == "tensorflow" and not backend.has_gpu()
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=FocalTversky(**asdict(loss)),
        jit_compile=False if on_tensorflow_cpu else "auto",
    )
    model.optimizer.build(model.trainable_variables)


def run_epochs(
    model: keras.Model,
    *,
    train: training_data.SliceSource,
    validation: training_data.SliceSource,
    config: EpochConfig,
    state: schedule.State,
    done: int,
) -> Iterator[tuple[EpochResult, schedule.State]]:
    """Train epoch by epoch until the schedule ends; yield after each one.

    The order of an epoch's slices and their augmentation depend on the seed and the number of
    the epoch only: a training that resumes from a checkpoint takes the same steps.

    Args:
        model: compiled by `compile_model`; it is changed in place.
        state: of the schedule after epoch `done`.
        done: number of finished epochs; 0 at the start.

    Raises:
        GliaflowError: the loss or a weight is not finite; or, at the end, no epoch reached a
            validation Tversky of COLLAPSED.
    """
    compiled, side = steps.compile_steps(model), model.inputs[0].shape[1]
    rules = config.rules
    for number in range(done + 1, rules.epochs + 1):
        if schedule.is_over(state, rules=rules):
            break
        rate = state.learning_rate
        model.optimizer.learning_rate = rate
        generator = np.random.default_rng([config.seed, number])
        train_loss = _train_once(compiled, train, config, side, generator)
        val_loss, score = _validate(compiled, validation, config)
        epoch = EpochResult(number, train_loss, val_loss, score, rate)
        _refuse_infinite(epoch, model)
        state = schedule.next_state(state, epoch=number, score=score, rules=rules)
        yield epoch, state
    if state.best_score < COLLAPSED:
        raise GliaflowError(
            f"the validation Tversky never got past {COLLAPSED} (best: {state.best_score:.4f}, epoch "
            f"{state.best_epoch}); the network found no tumour. Try more train.epochs, another "
            "train.learning_rate, a larger train.image_size or train.slices: tumour"
        )


def _refuse_infinite(epoch: EpochResult, model: keras.Model) -> None:
    # A fused convolution can keep NaN weights from reaching the loss, so check the weights too.
    weights = sum(float(np.sum(value)) for value in backend.to_numpy(model.variables))
    if not np.isfinite([epoch.loss, epoch.val_loss, weights]).all():
        raise GliaflowError(
            f"the loss of epoch {epoch.epoch} is {epoch.loss} ({epoch.val_loss} in validation), its "
            f"weights are {'' if np.isfinite(weights) else 'not '}finite; training ended. Try a lower "
            f"train.learning_rate (it was {epoch.learning_rate:g}) or another train.seed"
        )


def get_variables(model: keras.Model) -> list[np.ndarray]:
    """Copy everything that training changes: weights, batch statistics, optimizer."""
    return backend.to_numpy(_variables(model))


def set_variables(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    """Restore what `get_variables` returned for a model of the same shape."""
    for variable, value in zip(_variables(model), values, strict=True):
        variable.assign(value)


def running_mean(
    mean: Sequence[np.ndarray] | None, values: Sequence[np.ndarray], count: int
) -> list[np.ndarray]:
    """Extend a mean over sets of variables by one more set.

    Args:
        mean: of the first `count` - 1 sets; None for the first one.
        values: the set to add. Integers (the optimizer's step count) are taken from it, not
            averaged.
        count: number of sets, with the added one.

    Source: Izmailov et al. 2018 (stochastic weight averaging), over epochs. Unlike there,
    batch statistics are averaged like weights, not computed again.
    """
    if mean is None:
        return list(values)
    return [
        old + (new - old) / np.float32(count) if np.issubdtype(new.dtype, np.floating) else new
        for old, new in zip(mean, values, strict=True)
    ]


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def _train_once(
    compiled: steps.Steps,
    source: training_data.SliceSource,
    config: EpochConfig,
    side: int,
    generator: np.random.Generator,
) -> float:
    """Train one epoch; return its mean loss."""
    order = training_data.epoch_order(source, generator, balanced=config.balanced)
    batch = min(config.batch, len(order))
    count = len(order) // batch
    chosen = np.sort(order[: count * batch].reshape(count, batch), axis=1)
    sampled = _sample(config.augmentation, generator, steps=count, batch=batch, side=side)
    losses, done = [], 0
    for part in source.parts(chosen):
        steps_in_part = slice(done, done + len(part.chosen))
        sampled_in_part = None if sampled is None else sampled.at(steps_in_part)
        losses.append(compiled.train(part.images, part.masks, part.chosen, sampled_in_part))
        done = steps_in_part.stop
    return float(np.concatenate(losses).mean())


def _sample(
    augmentation: augment.Augmentation,
    generator: np.random.Generator,
    *,
    steps: int,
    batch: int,
    side: int,
) -> augment.Sampled | None:
    """Sample the augmentation parameters of an epoch, step by step; None if it is off."""
    if augmentation.is_off:
        return None
    return augment.stack(
        [
            augment.sample(generator, slices=batch, side=side, settings=augmentation)
            for _ in range(steps)
        ]
    )


def _validate(
    compiled: steps.Steps, source: training_data.SliceSource, config: EpochConfig
) -> tuple[float, float]:
    """Return the mean loss over batches, and the mean Tversky over patients at threshold 0.5.

    The last batch is filled with copies of the last slice, which do not count.
    """
    slices = len(source.patients)
    count = -(-slices // config.batch)
    positions = np.arange(count * config.batch)
    counts = (positions < slices).reshape(count, config.batch)
    chosen = np.minimum(positions, slices - 1).reshape(count, config.batch)
    pixels, losses, done = [], [], 0
    for part in source.parts(chosen):
        steps_in_part = slice(done, done + len(part.chosen))
        pixels_in_part, losses_in_part = compiled.validate(
            part.images, part.masks, part.chosen, counts[steps_in_part]
        )
        pixels.append(pixels_in_part.reshape(-1, 3))
        losses.append(losses_in_part)
        done = steps_in_part.stop
    pixels_by_slice = np.concatenate(pixels)[:slices]
    scores = [
        _tversky(pixels_by_slice[source.patients == patient].sum(axis=0), config.loss.missed_weight)
        for patient in np.unique(source.patients)
    ]
    return float(np.concatenate(losses).mean()), float(np.mean(scores))


def _tversky(pixels: np.ndarray, missed_weight: float) -> float:
    """Compute the Tversky index from counts of true positive, tumour and predicted pixels."""
    true_positives, tumour, predicted = map(int, pixels)
    counts = metrics.Overlap(true_positives, tumour - true_positives, predicted - true_positives)
    return metrics.tversky(counts, missed_weight=missed_weight)
