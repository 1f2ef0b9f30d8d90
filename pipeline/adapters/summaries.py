"""What follows for all patients from the rows of each: means with intervals, groups."""

from typing import Any

import pandas as pd

from pipeline.domain import metrics
from pipeline.params import Evaluate

SCORES = ("tversky", "dice", "sensitivity", "precision")


def of_patients(table: pd.DataFrame, wanted: Evaluate) -> dict[str, Any]:
    """Mean and interval of each score over patients, and the share of false alarms.

    Args:
        table: rows of patients.csv, at least one.
    """
    summary = {score: _interval(table[score], wanted) for score in SCORES}
    free = (table.slices - table.tumour_slices).to_numpy()
    if free.sum() > 0:
        alarms = metrics.bootstrap_share(
            table.false_alarm_slices.to_numpy(),
            free,
            resamples=wanted.resamples,
            seed=wanted.seed,
        )
        summary["false_alarms"] = _rounded(alarms, "slices")
    return summary


def of_groups(test: pd.DataFrame, wanted: Evaluate) -> dict[str, Any]:
    """Tversky and Dice of each group of patients, by grouping."""
    labels = {"site": "site", "tumour size": "size_group", "missing sequence": "missing"}
    groups: dict[str, Any] = {name: {} for name in labels}
    columns = {name: list(test[column]) for name, column in labels.items()}
    for grouping, group, belongs in metrics.members(columns):
        groups[grouping][group] = {
            score: _interval(test[score][belongs], wanted) for score in ("tversky", "dice")
        }
    return groups


def _interval(values: pd.Series, wanted: Evaluate) -> dict[str, Any]:
    interval = metrics.bootstrap_mean(
        values.to_numpy(), resamples=wanted.resamples, seed=wanted.seed
    )
    return {**_rounded(interval, "patients"), "median": round(float(values.median()), 6)}


def _rounded(interval: metrics.Interval, of: str) -> dict[str, Any]:
    return {
        "mean": round(interval.mean, 6),
        "low": round(interval.low, 6),
        "high": round(interval.high, 6),
        of: interval.count,
    }
