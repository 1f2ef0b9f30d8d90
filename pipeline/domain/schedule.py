"""When the learning rate falls and when training ends: plain state, one step an epoch.

Kept apart from Keras's callbacks so that it can be written to a checkpoint and read back:
a training that was killed goes on exactly as it would have.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

WARM_UP = 0.05  # share of a cosine schedule in which the rate rises


@dataclass(frozen=True)
class Rules:
    """Patience in epochs; rates as the optimizer takes them.

    kind: `plateau` lets the rate fall and training end by the validation score, and the best
        epoch is kept. `cosine` lets the rate rise for a few epochs and then fall along half a
        cosine to `min_learning_rate` in epoch `epochs`, which is kept: validation chooses
        nothing.
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
    """After an epoch: the rate for the next one, the best score so far and how long ago it was."""

    learning_rate: float
    best_score: float = float("-inf")
    best_epoch: int = 0
    since_best: int = 0
    since_fall: int = 0

    @property
    def is_best(self) -> bool:
        """Whether the epoch that led here was the best so far."""
        return self.since_best == 0


def step(state: State, *, epoch: int, score: float, rules: Rules) -> State:
    """Take in the validation score of an epoch (higher is better; ties keep the earlier one)."""
    if rules.kind == "cosine":
        return State(cosine_rate(epoch + 1, rules=rules), best_score=score, best_epoch=epoch)
    if score > state.best_score:
        return replace(state, best_score=score, best_epoch=epoch, since_best=0, since_fall=0)
    state = replace(state, since_best=state.since_best + 1, since_fall=state.since_fall + 1)
    if state.since_fall < rules.plateau_patience:
        return state
    lower = max(state.learning_rate * rules.plateau_factor, rules.min_learning_rate)
    return replace(state, learning_rate=min(state.learning_rate, lower), since_fall=0)


def start(rules: Rules) -> State:
    """Before the first epoch."""
    return State(cosine_rate(1, rules=rules) if rules.kind == "cosine" else rules.learning_rate)


def cosine_rate(epoch: int, *, rules: Rules) -> float:
    """The rate of an epoch, counted from 1, in a cosine schedule of `rules.epochs` epochs.

    Source: Loshchilov & Hutter 2017, without restarts; the rise in front is Goyal et al. 2017.
    """
    rising = max(round(WARM_UP * rules.epochs), 1)
    if epoch <= rising:
        return rules.learning_rate * epoch / (rising + 1)
    share = (epoch - rising - 1) / max(rules.epochs - rising - 1, 1)
    height = (1 + math.cos(math.pi * min(share, 1.0))) / 2
    return rules.min_learning_rate + (rules.learning_rate - rules.min_learning_rate) * height


def is_over(state: State, *, rules: Rules) -> bool:
    return rules.kind == "plateau" and state.since_best >= rules.patience
