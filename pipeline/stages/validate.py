"""Check every slice with Great Expectations; put patients who break a rule into quarantine."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from pipeline.adapters.storage import csv_files, recall_list, stage_tables
from pipeline.adapters.validation import expectations
from pipeline.domain import recall
from pipeline.errors import GliaflowError
from pipeline.params import Params

COLUMNS = ["patient", "rule", "file", "found", "expected"]


def run(params: Params, *, manifest: Path, recalled: Path, quarantine: Path, docs: Path) -> None:
    """Write quarantine.csv and Data Docs.

    Args:
        manifest: read. recalled: patients who withdrew; they are kept out, and no fault of the
            data set.

    Raises:
        GliaflowError: the accepted patients are too few to train on, or too many are in
            quarantine.
    """
    section = params.validate_
    table = stage_tables.read_manifest(manifest)
    suites = expectations.Suites(docs)
    findings = expectations.check_rows(
        table, height_px=section.height_px, width_px=section.width_px, suites=suites
    )
    withdrawn = set(recall_list.read(recalled).patient) & set(table.patient)
    findings += [_recalled(patient, recalled) for patient in sorted(withdrawn)]
    broken = pd.DataFrame([asdict(finding) for finding in findings], columns=COLUMNS)
    csv_files.write_table(quarantine, broken)
    quarantined = stage_tables.quarantined_patients(broken)
    accepted = table[~table.patient.isin(quarantined)]
    _report(accepted, quarantined, broken)
    faults = expectations.check_data_set(
        {
            "patients": accepted.patient.nunique(),
            "quarantined_share": _share(quarantined - withdrawn, set(table.patient) - withdrawn),
            "tumour_slices": int((accepted.tumour_pixels > 0).sum()),
        },
        min_patients=section.min_patients,
        max_quarantined=section.max_quarantined,
        suites=suites,
    )
    if faults:
        raise GliaflowError(f"{'; '.join(faults)}. {quarantine} names patient, rule and file")


def _recalled(patient: str, recalled: Path) -> expectations.Finding:
    return expectations.Finding(
        patient, recall.RULE, recalled.name, "the patient withdrew", "a patient who did not"
    )


def _share(part: set[str], whole: set[str]) -> float:
    return len(part) / len(whole) if whole else 1.0


def _report(accepted: pd.DataFrame, quarantined: set[str], broken: pd.DataFrame) -> None:
    patients = accepted.patient.nunique()
    print(f"validate: {patients} patients accepted, {len(quarantined)} in quarantine")
    for (patient, rule), files in broken.groupby(["patient", "rule"], sort=False).file:
        print(f"validate: quarantine: {patient}: {rule} ({files.iloc[0]})")
