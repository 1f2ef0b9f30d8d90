"""Assign the accepted patients (or slices) to train, validation and test."""

from pathlib import Path

import pandas as pd

from pipeline.adapters.storage import csv_files, stage_tables
from pipeline.domain import splits as split_rules
from pipeline.params import Params


def run(params: Params, *, manifest: Path, quarantine: Path, splits: Path) -> None:
    """Write splits.csv, then read it back and check that no unit is in two splits."""
    section = params.split
    accepted = stage_tables.accepted_slices(manifest, quarantine)
    units = stage_tables.split_units(accepted, section.unit)
    assigned = split_rules.assignment(
        stage_tables.unit_names(units),
        salt=section.salt, validation=section.validation, test=section.test,
    )  # fmt: skip
    csv_files.write_table(splits, units.assign(split=assigned))
    stage_tables.check_disjoint(splits, by_slice=section.unit == "slice")
    _report(accepted, stage_tables.join_splits(accepted, splits), section.unit)


def _report(accepted: pd.DataFrame, assigned: pd.DataFrame, unit: str) -> None:
    def counts(by_split: pd.Series) -> str:
        return "/".join(str(by_split.get(name, 0)) for name in split_rules.SPLITS)

    patients = counts(assigned.groupby("split").patient.nunique())
    slices = counts(assigned.groupby("split").size())
    tumour_share = (accepted.tumour_pixels > 0).mean()
    print(
        f"split: by {unit}, train/validation/test: {patients} patients, {slices} slices, "
        f"{tumour_share:.0%} tumour slices"
    )
