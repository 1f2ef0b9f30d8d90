"""Select the patients and slices that the report shows."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.adapters.model import predictions
from pipeline.adapters.report import html_page, slice_images
from pipeline.adapters.scans import arrays
from pipeline.domain import intensity
from pipeline.params import Params


def select_patients(
    params: Params, table: pd.DataFrame, rows: pd.DataFrame, *, scans: Path, predicted: Path
) -> list[html_page.PatientFigure]:
    """Select the worst, median and best test patients by Dice; each patient once.

    Args:
        table: as in patients.csv.
        rows: of the manifest, with their split.
        scans, predicted: paths of the scans and of the predicted masks.
    """
    test = table[table.split == "test"].sort_values(["dice", "patient"], ignore_index=True)
    count = min(params.report.patients, len(test))
    middle = max((len(test) - count) // 2, 0)
    # A patient in two of the groups is shown as the worse: later entries replace earlier ones.
    reasons = dict.fromkeys(reversed(range(len(test) - count, len(test))), "best")
    reasons |= dict.fromkeys(range(middle, middle + count), "median")
    reasons |= dict.fromkeys(range(count), "worst")
    return [
        patient_figure(test.iloc[i], reasons[i], params.report.slices, rows, scans, predicted)
        for i in sorted(reasons)
    ]


def patient_figure(
    row: pd.Series, why: str, count: int, rows: pd.DataFrame, scans: Path, predicted: Path
) -> html_page.PatientFigure:
    """Read a patient's most informative slices with both masks.

    Args:
        row: of patients.csv.
        why: reason for showing the patient.
        count: slices to show.
        rows: of the manifest, with their split.
        scans, predicted: paths of the scans and of the predicted masks.
    """
    slices = rows[(rows.patient == row.patient) & (rows.split == row.split)]
    scan = arrays.open_scan(scans, row.patient)
    positions = slices.position.to_numpy()
    truth = scan.masks[positions].astype(bool)
    mask = predictions.load_mask(predicted, f"{row.split}/{row.patient}")
    scale = intensity.estimate_scale(scan.images)
    return html_page.PatientFigure(
        patient=row.patient,
        why=why,
        dice=float(row.dice),
        tversky=float(row.tversky),
        slices=[
            slice_images.SliceFigure(
                int(slices.slice.iloc[i]),
                intensity.apply_scale(np.asarray(scan.images[positions[i]]), scale),
                truth[i],
                mask[i],
            )
            for i in informative_slices(truth, mask, count)
        ],
    )


def informative_slices(truth: np.ndarray, predicted: np.ndarray, count: int) -> list[int]:
    """Return positions of the slices that tell most about a patient, in order.

    The slice with most wrong pixels, then slices spread evenly over those with tumour in
    either mask. The middle slice if both masks are empty.

    Args:
        truth, predicted: (S, H, W) bool.
        count: most slices to return, at least 1.
    """
    wrong = (truth ^ predicted).sum(axis=(1, 2))
    with_tumour = np.flatnonzero((truth | predicted).any(axis=(1, 2)))
    if len(with_tumour) == 0:
        return [len(truth) // 2]
    spread = np.linspace(0, len(with_tumour) - 1, min(count, len(with_tumour))).round().astype(int)
    chosen = [int(wrong.argmax()), *(int(with_tumour[i]) for i in spread)]
    return sorted(dict.fromkeys(chosen[: count + 1]))[:count] if count > 1 else chosen[:1]
