"""The learning-rate schedule and early stopping, as plain state with one step per epoch.

This is separate from Keras's callbacks so that checkpoints can hold the state: a training that
was killed resumes exactly where it was.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

WARM_UP = 0.05  # share of the epochs of a cosine schedule during which the rate rises


@dataclass(frozen=True)
class Rules:
    """The rules of a schedule.

    kind: `plateau` lowers the rate and ends the training by the validation score; the best
        epoch is used. `cosine` raises the rate for a few epochs, then lowers it along half a
        cosine to `min_learning_rate` in the last epoch, which is used. There the validation
        score decides nothing.
    epochs: number of epochs at most; exactly, for `cosine`.
    learning_rate: at the start for `plateau`, the highest for `cosine`.
    patience: epochs without a better score after which a `plateau` training ends.
    plateau_patience: epochs without a better score after which the rate falls.
    plateau_factor: what the rate is multiplied by then, in (0, 1).
    min_learning_rate: the rate never falls below it.
    """

    kind: Literal["plateau", "cosine"]
    epochs: int
    learning_rate: float
    patience: int
    plateau_patience: int
    plateau_factor: float
    min_learning_rate: float


@dataclass(frozen=True)
class State:
    """The state of a schedule after an epoch.

    learning_rate: of the next epoch.
    best_score, best_epoch: so far; for `cosine`, always the last epoch.
    since_best: epochs since the best one.
    since_fall: epochs without a better score since the rate last fell.
    """

    learning_rate: float
    best_score: float = float("-inf")
    best_epoch: int = 0
    since_best: int = 0
    since_fall: int = 0

    @property
    def is_best(self) -> bool:
        """Whether the last epoch is the best so far."""
        return self.since_best == 0


def next_state(state: State, *, epoch: int, score: float, rules: Rules) -> State:
    """Return the state after an epoch.

    Args:
        epoch: its number, from 1.
        score: its validation score; higher is better, a tie keeps the earlier epoch.
    """
    if rules.kind == "cosine":
        return State(cosine_rate(epoch + 1, rules=rules), best_score=score, best_epoch=epoch)
    if score > state.best_score:
        return replace(state, best_score=score, best_epoch=epoch, since_best=0, since_fall=0)
    state = replace(state, since_best=state.since_best + 1, since_fall=state.since_fall + 1)
    if state.since_fall < rules.plateau_patience:
        return state
    lowered = max(state.learning_rate * rules.plateau_factor, rules.min_learning_rate)
    return replace(state, learning_rate=min(state.learning_rate, lowered), since_fall=0)


def initial_state(rules: Rules) -> State:
    """Return the state before the first epoch."""
    return State(cosine_rate(1, rules=rules) if rules.kind == "cosine" else rules.learning_rate)


def cosine_rate(epoch: int, *, rules: Rules) -> float:
    """Return the rate of an epoch in a cosine schedule of `rules.epochs` epochs.

    Args:
        epoch: its number, from 1; after the last epoch the rate stays at its minimum.

    Source: Loshchilov & Hutter 2017, without restarts; the warm-up is Goyal et al. 2017.
    """
    warm_up = max(round(WARM_UP * rules.epochs), 1)
    if epoch <= warm_up:
        return rules.learning_rate * epoch / (warm_up + 1)
    progress = (epoch - warm_up - 1) / max(rules.epochs - warm_up - 1, 1)
    height = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return rules.min_learning_rate + (rules.learning_rate - rules.min_learning_rate) * height


def is_over(state: State, *, rules: Rules) -> bool:
    """Return whether a training ends early; never for `cosine`."""
    return rules.kind == "plateau" and state.since_best >= rules.patience
