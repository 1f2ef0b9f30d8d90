"""One page about the model: curves, every patient, the worst, median and best in pictures.

The decision is made later, outside the graph; its place on the page is kept free for it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.adapters import arrays, files, predictions, report, tables
from pipeline.domain import intensity
from pipeline.domain.splits import SPLITS
from pipeline.params import Finer, Params, Train


def run(
    params: Params,
    *,
    scans: Path,
    manifest: Path,
    quarantine: Path,
    splits: Path,
    history: Path,
    scores: Path,
    patients: Path,
    predicted: Path,
    page: Path,
    plot: Path,
    index: Path,
) -> None:
    """Write the page, and the curves once more as a picture for `dvc plots`.

    The page goes to `page`, which DVC keeps, and to `index`, which gets the decision.
    """
    rows = tables.with_split(tables.accepted(manifest, quarantine), splits)
    curves = files.read_table(history)
    table = files.read_table(patients)
    text = report.render(
        metrics=files.read_json(scores),
        patients=table,
        history=curves,
        quarantine=files.read_table(quarantine),
        pictured=_pictured(params, table, rows, scans=scans, predicted=predicted),
        counts=_counts(rows),
        settings=settings_shown(params),
    )
    files.write_text(page, text)
    files.write_text(index, text)
    with files.replacing(plot) as beside:
        beside.write_bytes(report.curves_png(curves))
    print(f"report: {index}")


def _pictured(
    params: Params, table: pd.DataFrame, rows: pd.DataFrame, *, scans: Path, predicted: Path
) -> list[report.Pictured]:
    """The worst, median and best test patients by Dice; nobody twice."""
    test = table[table.split == "test"].sort_values(["dice", "patient"], ignore_index=True)
    count = min(params.report.patients, len(test))
    middle = max((len(test) - count) // 2, 0)
    chosen = dict.fromkeys(reversed(range(len(test) - count, len(test))), "best")
    chosen |= dict.fromkeys(range(middle, middle + count), "median")
    chosen |= dict.fromkeys(range(count), "worst")
    return [
        picture(test.iloc[i], chosen[i], params.report.slices, rows, scans, predicted)
        for i in sorted(chosen)
    ]


def picture(
    row: pd.Series, why: str, wanted: int, rows: pd.DataFrame, scans: Path, predicted: Path
) -> report.Pictured:
    """A patient to look at.

    Args:
        row: of patients.csv.
        wanted: slices to show.
        rows: the manifest's rows with their split.
    """
    own = rows[(rows.patient == row.patient) & (rows.split == row.split)]
    scan = arrays.open_scan(scans, row.patient)
    positions = own.position.to_numpy()
    truth = scan.masks[positions].astype(bool)
    found = predictions.load(predicted, f"{row.split}/{row.patient}")
    scale = intensity.of_scan(scan.images)
    return report.Pictured(
        patient=row.patient,
        why=why,
        dice=float(row.dice),
        tversky=float(row.tversky),
        slices=[
            report.Slice(
                int(own.slice.iloc[i]),
                intensity.apply(np.asarray(scan.images[positions[i]]), scale),
                truth[i],
                found[i],
            )
            for i in telling_slices(truth, found, wanted)
        ],
    )


def telling_slices(truth: np.ndarray, found: np.ndarray, wanted: int) -> list[int]:
    """Positions of the slices that say most about a patient, in order.

    The one with most wrong pixels, then slices spread evenly over those that hold tumour
    or prediction.

    Args:
        truth, found: (S, H, W) bool.
    """
    wrong = (truth ^ found).sum(axis=(1, 2))
    marked = np.flatnonzero((truth | found).any(axis=(1, 2)))
    if len(marked) == 0:
        return [len(truth) // 2]
    spread = np.linspace(0, len(marked) - 1, min(wanted, len(marked))).round().astype(int)
    chosen = [int(wrong.argmax()), *(int(marked[i]) for i in spread)]
    return sorted(dict.fromkeys(chosen[: wanted + 1]))[:wanted] if wanted > 1 else chosen[:1]


def _counts(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    by = rows.groupby("split")
    with_tumour = rows[rows.tumour_pixels > 0].groupby("split").size()
    return {
        "patients": {name: int(by.patient.nunique().get(name, 0)) for name in SPLITS},
        "slices": {name: int(by.size().get(name, 0)) for name in SPLITS},
        "tumour_slices": {name: int(with_tumour.get(name, 0)) for name in SPLITS},
    }


def settings_shown(params: Params) -> dict[str, Any]:
    """What a reader needs to know of how the model was made, as text."""
    train, evaluate = params.train, params.evaluate
    source = params.fetch.source
    finer = train.finer if train.finer.epochs else None
    networks = train.networks * (2 if finer else 1)
    at_most = "at most " if train.schedule == "plateau" else ""
    return {
        "source": source if source.startswith("s3://") else Path(source).name,
        "unit": params.split.unit,
        "salt": params.split.salt,
        "training slices": train.slices,
        "brightness": "one a scan" if train.intensity == "scan" else "as it came",
        "image size": f"{train.image_size} px"
        + (f", then {2 * train.image_size} px" if finer else ""),
        "filters": ", ".join(map(str, train.filters)),
        "batch": str(train.batch),
        "epochs": f"{at_most}{train.epochs}" + (f", then {finer.epochs}" if finer else ""),
        "weights kept": _weights_kept(train) + (f", then {_weights_kept(finer)}" if finer else ""),
        "learning rate": f"{train.learning_rate:g}, {train.schedule}"
        + (f", then {finer.learning_rate:g}" if finer else ""),
        "loss": f"focal Tversky, missed weight {train.missed_weight:g}, "
        f"exponent {train.exponent:g}, {train.loss_by_slice:.0%} of it by slice",
        "slices changed": ", ".join(f"{name} {value:g}" for name, value in train.augment if value)
        or "not",
        "networks": "one" if networks == 1 else f"mean of {networks}",
        "seed": str(train.seed),
        "missed_weight": evaluate.missed_weight,
        "threshold": f"{evaluate.threshold:g}",
        "views of a slice": "one" if evaluate.views == 1 else f"mean of {evaluate.views}",
        "regions kept": evaluate.keep,
        "smallest area of a slice": f"{evaluate.min_area_px} px",
        "interval": f"95 %, {evaluate.resamples} resamples of patients",
    }


def _weights_kept(wanted: Train | Finer) -> str:
    if isinstance(wanted, Train) and wanted.schedule == "plateau":
        return "best epoch by validation"
    count = wanted.average_epochs
    return f"mean of the last {count} epochs" if count else "last epoch"
