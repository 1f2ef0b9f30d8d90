"""Summarise rows of patients: means with intervals, scores of groups, counts of splits."""

from typing import TYPE_CHECKING, Any

from pipeline.domain import metrics
from pipeline.domain.splits import SPLITS
from pipeline.params import Evaluate

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("tversky", "dice", "sensitivity", "precision")
# Grouping to its column of patients.csv.
GROUPINGS = {"site": "site", "tumour size": "size_group", "missing sequence": "missing"}


def summarize_patients(patients: "pd.DataFrame", section: Evaluate) -> dict[str, Any]:
    """Return the mean and interval of each score, and the share of false-positive slices.

    Args:
        patients: rows of patients.csv, at least one.

    Returns:
        Each of `SCORES`, and `false_alarms`: the share of tumour-free slices with a false
        positive. It is absent if no patient has tumour-free slices.
    """
    summary = {score: _score_summary(patients[score], section) for score in SCORES}
    tumour_free = (patients.slices - patients.tumour_slices).to_numpy()
    if tumour_free.sum() > 0:
        share = metrics.bootstrap_share(
            patients.false_alarm_slices.to_numpy(),
            tumour_free,
            resamples=section.resamples,
            seed=section.seed,
        )
        summary["false_alarms"] = _rounded(share, "slices")
    return summary


def summarize_groups(patients: "pd.DataFrame", section: Evaluate) -> dict[str, Any]:
    """Return Tversky and Dice of each group of patients, by grouping.

    Args:
        patients: rows of patients.csv; without rows, each grouping is empty.
    """
    groups: dict[str, Any] = {grouping: {} for grouping in GROUPINGS}
    labels = {grouping: list(patients[column]) for grouping, column in GROUPINGS.items()}
    for grouping, group, belongs in metrics.group_members(labels):
        groups[grouping][group] = {
            score: _score_summary(patients[score][belongs], section)
            for score in ("tversky", "dice")
        }
    return groups


def _score_summary(values: "pd.Series[Any]", section: Evaluate) -> dict[str, Any]:
    interval = metrics.bootstrap_mean(
        values.to_numpy(), resamples=section.resamples, seed=section.seed
    )
    return {**_rounded(interval, "patients"), "median": round(float(values.median()), 6)}


def _rounded(interval: metrics.Interval, unit: str) -> dict[str, Any]:
    return {
        "mean": round(interval.mean, 6),
        "low": round(interval.low, 6),
        "high": round(interval.high, 6),
        unit: interval.count,
    }


def count_by_split(rows: "pd.DataFrame") -> dict[str, dict[str, int]]:
    """Count patients, slices and tumour slices of each split; a split without rows has 0.

    Args:
        rows: one per slice, with patient, split and tumour_pixels.
    """
    groups = rows.groupby("split")
    with_tumour = rows[rows.tumour_pixels > 0].groupby("split").size()
    return {
        "patients": {name: int(groups.patient.nunique().get(name, 0)) for name in SPLITS},
        "slices": {name: int(groups.size().get(name, 0)) for name in SPLITS},
        "tumour_slices": {name: int(with_tumour.get(name, 0)) for name in SPLITS},
    }
