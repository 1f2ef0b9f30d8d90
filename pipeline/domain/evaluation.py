"""Score patients, and summarise the scores as metrics.json.

S slices in a scan, T of them with tumour, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.domain import metrics, summaries
from pipeline.params import Evaluate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ScoredPatient:
    """A patient's scores and predicted mask, and the tumour slices for the seed Tversky.

    row: of patients.csv: scores and counts, with patient and split.
    mask: (S, H, W) bool, the prediction.
    truth: (T, H, W) bool.
    probability: (T, H, W) float32 in [0, 1].
    """

    row: dict[str, Any]
    mask: np.ndarray
    truth: np.ndarray
    probability: np.ndarray


def patient_scores(
    truth: np.ndarray, predicted: np.ndarray, *, missed_weight: float
) -> dict[str, Any]:
    """Return the scores and counts of one patient, as columns of patients.csv.

    Args:
        truth, predicted: (S, H, W) bool.
        missed_weight: of the Tversky index, see `metrics.tversky`.

    Returns:
        Scores are over the whole scan and rounded to six decimals. `false_alarm_slices`
        counts tumour-free slices with at least one predicted pixel.
    """
    counts = metrics.overlap(truth, predicted)
    tumour_free = ~truth.any(axis=(1, 2))
    return {
        "tversky": round(metrics.tversky(counts, missed_weight=missed_weight), 6),
        "dice": round(metrics.dice(counts), 6),
        "sensitivity": round(metrics.sensitivity(counts), 6),
        "precision": round(metrics.precision(counts), 6),
        "slices": len(truth),
        "tumour_slices": int((~tumour_free).sum()),
        "tumour_pixels": counts.tumour,
        "predicted_pixels": counts.predicted,
        "false_alarm_slices": int((predicted.any(axis=(1, 2)) & tumour_free).sum()),
    }


def summarize(
    patients: "pd.DataFrame", scored: Sequence[ScoredPatient], section: Evaluate
) -> dict[str, Any]:
    """Return the content of metrics.json.

    Args:
        patients: rows of patients.csv.
        scored: the same patients, in the order in which the seed Tversky batches their slices.

    Returns:
        One summary per split of `section.splits` that has patients, `groups` of the test
        patients, and `seed_tversky` if there are test patients.
    """
    summary: dict[str, Any] = {
        split: summaries.summarize_patients(patients[patients.split == split], section)
        for split in section.splits
        if (patients.split == split).any()
    }
    test = [patient for patient in scored if patient.row["split"] == "test"]
    if test:
        mean, batches = metrics.seed_tversky(
            np.concatenate([patient.truth for patient in test]),
            np.concatenate([patient.probability for patient in test]),
            missed_weight=section.missed_weight,
        )
        summary["seed_tversky"] = {"mean": round(mean, 6), "batches": batches}
    summary["groups"] = summaries.summarize_groups(patients[patients.split == "test"], section)
    return summary
