"""How the network is trained: compiled step, one epoch after another, state in and out.

N slices, S x S pixels at the network's own size. Does not know files: what an epoch leaves
is yielded, and whoever calls writes it down.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from pipeline.domain import metrics, schedule
from pipeline.errors import GliaflowError
from pipeline.network import augment, backend
from pipeline.network.inference import probabilities
from pipeline.network.losses import FocalTversky, focal_tversky

COLLAPSED = 0.01  # a validation Tversky that never gets past this has learnt nothing


@dataclass(frozen=True)
class Slices:
    """Slices in memory, ready for the network.

    images: (N, S, S, 3) uint8.
    masks: (N, S, S) uint8, the share of tumour in a pixel times 255.
    patients: (N,) number of the patient a slice belongs to.
    """

    images: np.ndarray
    masks: np.ndarray
    patients: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, chosen: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        return self.images[chosen], self.masks[chosen, :, :, None].astype(np.float32) / 255


@dataclass(frozen=True)
class Loss:
    """Settings of the focal Tversky loss."""

    missed_weight: float
    exponent: float


@dataclass(frozen=True)
class Epoch:
    """One row of the curves. Scores are of validation patients, at the network's size."""

    epoch: int
    loss: float
    val_loss: float
    val_tversky: float
    learning_rate: float


def compile_model(model: keras.Model, *, loss: Loss, learning_rate: float) -> None:
    """Make the training step. XLA halves the speed on a CPU under TensorFlow, so not there."""
    on_tensorflow_cpu = keras.backend.backend() == "tensorflow" and not backend.has_gpu()
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=FocalTversky(missed_weight=loss.missed_weight, exponent=loss.exponent),
        jit_compile=False if on_tensorflow_cpu else "auto",
    )
    model.optimizer.build(model.trainable_variables)


def epochs(
    model: keras.Model,
    *,
    train: Slices,
    validation: Slices,
    batch: int,
    last: int,
    augmentation: augment.Settings,
    loss: Loss,
    rules: schedule.Rules,
    state: schedule.State,
    done: int,
    seed: int,
) -> Iterator[tuple[Epoch, schedule.State]]:
    """Train epoch by epoch until the schedule ends, yielding after each one.

    The order of an epoch's slices and how they are changed depend on the seed and its number
    alone, so that a training which goes on from a checkpoint takes the same steps.

    Args:
        batch: slices a step; what does not fill a batch is left for another epoch's order.
        last: number of the last epoch, if the schedule does not end before.
        state: of the schedule after epoch `done`; 0 is the start.

    Raises:
        GliaflowError: the loss is not finite; or no epoch got past the floor.
    """
    for number in range(done + 1, last + 1):
        if schedule.is_over(state, rules=rules):
            break
        rate = state.learning_rate
        model.optimizer.learning_rate = rate
        generator = np.random.default_rng([seed, number])
        train_loss = _train_once(model, train, batch, augmentation, generator)
        val_loss, score = _validate(model, validation, batch=batch, loss=loss)
        # A fused convolution may hide weights that are no numbers from the loss, so look there too.
        weights = sum(float(np.sum(value)) for value in model.get_weights())
        if not np.isfinite([train_loss, val_loss, weights]).all():
            raise GliaflowError(
                f"the loss of epoch {number} is {train_loss} ({val_loss} in validation), its weights "
                f"are {'' if np.isfinite(weights) else 'not '}finite; training ended. Try a lower "
                f"train.learning_rate (it was {rate:g}) or another train.seed"
            )
        state = schedule.step(state, epoch=number, score=score, rules=rules)
        yield Epoch(number, train_loss, val_loss, score, rate), state
    if state.best_score < COLLAPSED:
        raise GliaflowError(
            f"the validation Tversky never got past {COLLAPSED} (best: {state.best_score:.4f}, epoch "
            f"{state.best_epoch}); the network found no tumour. Try more train.epochs, another "
            "train.learning_rate, a larger train.image_size or train.slices: tumour"
        )


def variables(model: keras.Model) -> list[np.ndarray]:
    """Everything that changes while training: weights, batch statistics, optimizer."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in _variables(model)]


def restore(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    """Put back what `variables` gave for a model of the same shape."""
    for variable, value in zip(_variables(model), values, strict=True):
        variable.assign(value)


def patient_scores(
    probability: np.ndarray, truth: np.ndarray, patients: np.ndarray, *, missed_weight: float
) -> np.ndarray:
    """Tversky of each patient, cut at 0.5, over all slices given of that patient.

    Args:
        probability: (N, S, S) in [0, 1]; truth: (N, S, S) bool; patients: (N,) numbers.
    """
    return np.array(
        [
            metrics.tversky(
                metrics.overlap(truth[patients == one], probability[patients == one] >= 0.5),
                missed_weight=missed_weight,
            )
            for one in np.unique(patients)
        ]
    )


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def _train_once(
    model: keras.Model,
    train: Slices,
    batch: int,
    augmentation: augment.Settings,
    generator: np.random.Generator,
) -> float:
    order = generator.permutation(len(train))
    batch = min(batch, len(train))
    model.reset_metrics()
    mean_loss = float("nan")
    for start in range(0, len(order) - batch + 1, batch):
        images, masks = train.batch(np.sort(order[start : start + batch]))
        if not augmentation.is_off:
            side = images.shape[1]
            drawn = augment.draw(generator, slices=batch, side=side, settings=augmentation)
            images, masks = augment.apply(images, masks, drawn)
        mean_loss = model.train_on_batch(images, masks, return_dict=True)["loss"]
    return float(mean_loss)


def _validate(
    model: keras.Model, validation: Slices, *, batch: int, loss: Loss
) -> tuple[float, float]:
    probability = probabilities(model, validation.images, batch=batch)
    losses = []
    for start in range(0, len(validation), batch):
        _, masks = validation.batch(slice(start, start + batch))
        found = keras.ops.convert_to_tensor(probability[start : start + batch, ..., None])
        value = focal_tversky(
            masks, found, missed_weight=loss.missed_weight, exponent=loss.exponent
        )
        losses.append(float(keras.ops.convert_to_numpy(value)))
    scores = patient_scores(
        probability,
        validation.masks >= 128,
        validation.patients,
        missed_weight=loss.missed_weight,
    )
    return float(np.mean(losses)), float(scores.mean())
