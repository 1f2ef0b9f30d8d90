"""The state of a training after an epoch, from which it can resume."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.domain import schedule


@dataclass(frozen=True)
class Checkpoint:
    """Everything a training needs to resume after its last completed epoch.

    variables: of model and optimizer.
    best: variables of the best epoch so far.
    mean: mean of the variables over the averaged epochs so far; None before the first of them.
    state: of the learning-rate schedule.
    rows: training history so far, one mapping per epoch.
    """

    variables: list[np.ndarray]
    best: list[np.ndarray]
    mean: list[np.ndarray] | None
    state: schedule.State
    rows: list[dict[str, Any]]
