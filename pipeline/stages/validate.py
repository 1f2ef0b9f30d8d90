"""Decide which patients are fit to use: the others go to quarantine, with the reason."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from pipeline.adapters import expectations, files, tables
from pipeline.errors import GliaflowError
from pipeline.params import Params

COLUMNS = ["patient", "rule", "file", "found", "expected"]


def run(params: Params, *, manifest: Path, quarantine: Path, docs: Path) -> None:
    """Write quarantine.csv and Data Docs; stop where the data set as a whole is not fit."""
    wanted = params.validate_
    table = files.read_table(manifest)
    suites = expectations.Suites(docs)
    findings = expectations.check_rows(
        table, height_px=wanted.height_px, width_px=wanted.width_px, suites=suites
    )
    broken = pd.DataFrame([asdict(finding) for finding in findings], columns=COLUMNS)
    files.write_table(quarantine, broken)
    kept_out = tables.kept_out(broken)
    accepted = table[~table.patient.isin(kept_out)]
    print(
        f"validate: {accepted.patient.nunique()} patients accepted, {len(kept_out)} in quarantine"
    )
    for (patient, rule), files_hit in broken.groupby(["patient", "rule"], sort=False).file:
        print(f"validate: quarantine: {patient}: {rule} ({files_hit.iloc[0]})")
    stops = expectations.check_data_set(
        {
            "patients": accepted.patient.nunique(),
            "quarantined_share": len(kept_out) / table.patient.nunique(),
            "tumour_slices": int((accepted.tumour_pixels > 0).sum()),
        },
        min_patients=wanted.min_patients,
        max_quarantined=wanted.max_quarantined,
        suites=suites,
    )
    if stops:
        raise GliaflowError(f"{'; '.join(stops)}. {quarantine} names patient, rule and file")
