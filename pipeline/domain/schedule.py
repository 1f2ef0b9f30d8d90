"""When the learning rate falls and when training ends: plain state, one step an epoch.

Kept apart from Keras's callbacks so that it can be written to a checkpoint and read back:
a training that was killed goes on exactly as it would have.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Rules:
    """Patience in epochs; rates as the optimizer takes them."""

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
    if score > state.best_score:
        return replace(state, best_score=score, best_epoch=epoch, since_best=0, since_fall=0)
    state = replace(state, since_best=state.since_best + 1, since_fall=state.since_fall + 1)
    if state.since_fall < rules.plateau_patience:
        return state
    lower = max(state.learning_rate * rules.plateau_factor, rules.min_learning_rate)
    return replace(state, learning_rate=min(state.learning_rate, lower), since_fall=0)


def is_over(state: State, *, rules: Rules) -> bool:
    return state.since_best >= rules.patience
