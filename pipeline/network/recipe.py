"""How the network is trained: compiled step, one epoch after another, state in and out.

N slices, S x S pixels at the network's own size. Does not know files: what an epoch leaves
is yielded, and whoever calls writes it down.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from pipeline.domain import metrics, schedule
from pipeline.errors import GliaflowError
from pipeline.network import augment, backend, steps
from pipeline.network.losses import FocalTversky

COLLAPSED = 0.01  # a validation Tversky that never gets past this has learnt nothing


class Part(NamedTuple):
    """images: (M, S, S, 3) uint8. masks: (M, S, S) uint8, share of tumour times 255.
    chosen: (t, B) positions in these arrays, of the next t steps.
    """

    images: Any
    masks: Any
    chosen: np.ndarray


class Source(Protocol):
    """Slices to train on or to judge by, wherever they lie.

    patients: (N,) number of the patient a slice belongs to. has_tumour: (N,) bool.
    """

    patients: np.ndarray
    has_tumour: np.ndarray

    def parts(self, chosen: np.ndarray) -> Iterator[Part]:
        """Arrays that hold the slices of some steps, one part after another, in order.

        Args:
            chosen: (T, B) positions among the N slices.
        """


@dataclass(frozen=True)
class Slices:
    """Slices in memory: the host's or, once `placed`, the device's. Arrays as in `Part`."""

    images: Any
    masks: Any
    patients: np.ndarray
    has_tumour: np.ndarray
    is_placed: bool = False

    def placed(self) -> "Slices":
        images, masks = steps.place(self.images), steps.place(self.masks)
        return replace(self, images=images, masks=masks, is_placed=True)

    def parts(self, chosen: np.ndarray) -> Iterator[Part]:
        if self.is_placed:
            yield Part(self.images, self.masks, chosen)
            return
        for own in chosen:
            yield Part(self.images[own], self.masks[own], np.arange(len(own))[None])


@dataclass(frozen=True)
class Loss:
    """Settings of the focal Tversky loss, as `focal_tversky` takes them."""

    missed_weight: float
    exponent: float
    by_slice: float = 0.0


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
        loss=FocalTversky(**asdict(loss)),
        jit_compile=False if on_tensorflow_cpu else "auto",
    )
    model.optimizer.build(model.trainable_variables)


def epochs(
    model: keras.Model,
    *,
    train: Source,
    validation: Source,
    batch: int,
    balanced: bool,
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
        balanced: all slices with tumour and as many without, drawn anew each epoch; else all.
        rules: of the schedule, with the number of its last epoch.
        state: of the schedule after epoch `done`; 0 is the start.

    Raises:
        GliaflowError: the loss is not finite; or no epoch got past the floor.
    """
    own, side = steps.make(model), model.inputs[0].shape[1]
    for number in range(done + 1, rules.epochs + 1):
        if schedule.is_over(state, rules=rules):
            break
        rate = state.learning_rate
        model.optimizer.learning_rate = rate
        generator = np.random.default_rng([seed, number])
        order = epoch_order(train, generator, balanced=balanced)
        train_loss = _train_once(own, train, order, batch, side, augmentation, generator)
        val_loss, score = _validate(own, validation, batch=batch, missed_weight=loss.missed_weight)
        epoch = Epoch(number, train_loss, val_loss, score, rate)
        _refuse_infinite(epoch, model)
        state = schedule.step(state, epoch=number, score=score, rules=rules)
        yield epoch, state
    if state.best_score < COLLAPSED:
        raise GliaflowError(
            f"the validation Tversky never got past {COLLAPSED} (best: {state.best_score:.4f}, epoch "
            f"{state.best_epoch}); the network found no tumour. Try more train.epochs, another "
            "train.learning_rate, a larger train.image_size or train.slices: tumour"
        )


def _refuse_infinite(epoch: Epoch, model: keras.Model) -> None:
    # A fused convolution may hide weights that are no numbers from the loss, so look there too.
    weights = sum(float(np.sum(value)) for value in backend.read(model.variables))
    if not np.isfinite([epoch.loss, epoch.val_loss, weights]).all():
        raise GliaflowError(
            f"the loss of epoch {epoch.epoch} is {epoch.loss} ({epoch.val_loss} in validation), its "
            f"weights are {'' if np.isfinite(weights) else 'not '}finite; training ended. Try a lower "
            f"train.learning_rate (it was {epoch.learning_rate:g}) or another train.seed"
        )


def variables(model: keras.Model) -> list[np.ndarray]:
    """Everything that changes while training: weights, batch statistics, optimizer."""
    return backend.read(_variables(model))


def restore(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    """Put back what `variables` gave for a model of the same shape."""
    for variable, value in zip(_variables(model), values, strict=True):
        variable.assign(value)


def mean_of(
    mean: Sequence[np.ndarray] | None, values: Sequence[np.ndarray], count: int
) -> list[np.ndarray]:
    """The mean of `count` sets of variables, from that of all but the last and the last.

    Args:
        mean: of the first count - 1; None where there was none.
        values: the last; whole numbers (the optimizer's count of steps) are taken from it.

    Source: Izmailov et al. 2018 (stochastic weight averaging), over epochs; batch statistics are
    averaged like weights, not counted anew.
    """
    if mean is None:
        return list(values)
    return [
        old + (new - old) / np.float32(count) if np.issubdtype(new.dtype, np.floating) else new
        for old, new in zip(mean, values, strict=True)
    ]


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def epoch_order(source: Source, generator: np.random.Generator, *, balanced: bool) -> np.ndarray:
    """Positions of an epoch's slices, shuffled.

    Args:
        balanced: all slices with tumour and as many of those without, drawn anew; where there
            are fewer without, all of them.
    """
    if not balanced:
        return generator.permutation(len(source.patients))
    tumour, free = np.flatnonzero(source.has_tumour), np.flatnonzero(~source.has_tumour)
    drawn = generator.choice(free, min(len(tumour), len(free)), replace=False)
    return generator.permutation(np.concatenate([tumour, drawn]))


def _train_once(
    own: steps.Steps,
    source: Source,
    order: np.ndarray,
    batch: int,
    side: int,
    augmentation: augment.Settings,
    generator: np.random.Generator,
) -> float:
    """One epoch; its mean loss."""
    batch = min(batch, len(order))
    count = len(order) // batch
    chosen = np.sort(order[: count * batch].reshape(count, batch), axis=1)
    drawn = None
    if not augmentation.is_off:
        settings = {"slices": batch, "side": side, "settings": augmentation}
        drawn = augment.stacked([augment.draw(generator, **settings) for _ in range(count)])
    losses, done = [], 0
    for part in source.parts(chosen):
        now = slice(done, done + len(part.chosen))
        change = None if drawn is None else drawn.of(now)
        losses.append(own.train(part.images, part.masks, part.chosen, change))
        done = now.stop
    return float(np.concatenate(losses).mean())


def _validate(
    own: steps.Steps, source: Source, *, batch: int, missed_weight: float
) -> tuple[float, float]:
    """Mean loss over batches, and the mean of the patients' Tversky, cut at 0.5."""
    count = -(-len(source.patients) // batch)
    places = np.arange(count * batch)
    counts = (places < len(source.patients)).reshape(count, batch)
    chosen = np.minimum(places, len(source.patients) - 1).reshape(count, batch)
    pixels, losses, done = [], [], 0
    for part in source.parts(chosen):
        now = slice(done, done + len(part.chosen))
        found, loss = own.judge(part.images, part.masks, part.chosen, counts[now])
        pixels.append(found.reshape(-1, 3))
        losses.append(loss)
        done = now.stop
    each = np.concatenate(pixels)[: len(source.patients)]
    scores = [
        _tversky(each[source.patients == one].sum(axis=0), missed_weight)
        for one in np.unique(source.patients)
    ]
    return float(np.concatenate(losses).mean()), float(np.mean(scores))


def _tversky(pixels: np.ndarray, missed_weight: float) -> float:
    hit, tumour, predicted = map(int, pixels)
    found = metrics.Overlap(hit, tumour - hit, predicted - hit)
    return metrics.tversky(found, missed_weight=missed_weight)
