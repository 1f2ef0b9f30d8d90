"""Write the report: training curves, every patient, and figures of the worst, median and best.

The decision is made later, outside the graph; the page keeps a slot for it.
"""

from pathlib import Path

import pandas as pd

from pipeline.adapters.report import curve_plots, html_page, run_settings, selection
from pipeline.adapters.storage import files, json_files, stage_tables
from pipeline.domain import summaries
from pipeline.params import Params


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
    """Write the report.

    Args:
        scans, manifest, quarantine, splits, history, scores, patients, predicted: read.
        page: the page as DVC tracks it.
        plot: the training curves as PNG, for `dvc plots`.
        index: the page again; publishing puts the decision on this one.
    """
    rows = stage_tables.join_splits(stage_tables.accepted_slices(manifest, quarantine), splits)
    curves: pd.DataFrame = stage_tables.read_history(history)
    table = stage_tables.read_patients(patients)
    text = html_page.render(
        metrics=json_files.read_json(scores),
        patients=table,
        history=curves,
        quarantine=stage_tables.read_quarantine(quarantine),
        figures=selection.select_patients(params, table, rows, scans=scans, predicted=predicted),
        counts=summaries.count_by_split(rows),
        settings=run_settings.describe(params),
    )
    files.write_text(page, text)
    files.write_text(index, text)
    with files.atomic_write(plot) as path:
        path.write_bytes(curve_plots.curves_png(curves))
    print(f"report: {index}")
