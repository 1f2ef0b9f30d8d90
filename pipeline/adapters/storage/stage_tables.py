"""Read and join the tables that stages hand on: manifest, quarantine, splits."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.adapters.storage import csv_files
from pipeline.domain import splits as split_rules
from pipeline.domain.scans import CONFLICT
from pipeline.errors import GliaflowError


def accepted_slices(manifest: Path, quarantine: Path) -> pd.DataFrame:
    """Read the manifest's rows of patients who are not in quarantine.

    Returns:
        Rows sorted by patient and slice, without those in conflict, with the added column
        `position`: index of the slice in its patient's arrays.
    """
    table = csv_files.read_table(manifest)
    table = table[~table.patient.isin(quarantined_patients(csv_files.read_table(quarantine)))]
    table = table[table.conflict.isna()].astype({"slice": int, "tumour_pixels": int})
    table = table.sort_values(["patient", "slice"], ignore_index=True)
    return table.assign(position=table.groupby("patient").cumcount())


def quarantined_patients(quarantine: pd.DataFrame) -> set[str]:
    """Return the patients that are kept out; a conflict keeps out only the slice in conflict."""
    return set(quarantine.patient[quarantine.rule != CONFLICT])


def join_splits(rows: pd.DataFrame, splits: Path) -> pd.DataFrame:
    """Add the column `split` to rows of slices, whether patients or slices were split.

    Args:
        rows: slices, with patient and slice.
        splits: file that the stage `split` wrote.

    Raises:
        GliaflowError: a unit is in two splits, or a slice has no split.
    """
    assigned = csv_files.read_table(splits).drop_duplicates()
    by_slice = "slice" in assigned.columns
    check_disjoint(splits, by_slice=by_slice)
    keys = ["patient", "slice"] if by_slice else ["patient"]
    joined = rows.merge(assigned, on=keys, how="left", validate="many_to_one")
    if joined.split.isna().any():
        patient = joined.patient[joined.split.isna()].iloc[0]
        raise GliaflowError(f"{splits} has no split for {patient}; run `dvc repro split`")
    return joined


def check_disjoint(splits: Path, *, by_slice: bool) -> None:
    """Read a written split back and check that no unit is in two splits.

    Args:
        by_slice: units are slices, not patients.

    Raises:
        GliaflowError: a unit is in two splits, a column is missing, or a split has an
            unknown name.
    """
    assigned = csv_files.read_table(splits)
    if not {"patient", "split"} <= set(assigned.columns):
        raise GliaflowError(
            f"{splits} has the columns {', '.join(assigned.columns)}; expected patient and split: "
            "delete it and run `dvc repro split`"
        )
    names = unit_names(assigned[["patient", "slice"] if by_slice else ["patient"]])
    repeated = split_rules.in_several_splits(zip(names, assigned.split, strict=True))
    if repeated:
        raise GliaflowError(
            f"{splits}: {repeated[0]} is in two splits ({len(repeated)} such units in total); "
            "expected each in one: delete the file and run `dvc repro split`"
        )
    unknown = set(assigned.split) - set(split_rules.SPLITS)
    if unknown:
        raise GliaflowError(
            f"{splits}: unknown split {sorted(map(str, unknown))[0]!r}; expected one of "
            f"{', '.join(split_rules.SPLITS)}: delete the file and run `dvc repro split`"
        )


def split_units(rows: pd.DataFrame, unit: split_rules.Unit) -> pd.DataFrame:
    """Return the units that are split, one row each, sorted: patients, or patients and slices."""
    columns = ["patient", "slice"] if unit == "slice" else ["patient"]
    return rows[columns].drop_duplicates().sort_values(columns)


def unit_names(units: pd.DataFrame) -> list[str]:
    """Return the name of each row of `split_units`: the patient, or the slice's key."""
    if "slice" not in units.columns:
        return list(units.patient)
    pairs = zip(units.patient, units.slice, strict=True)
    return [split_rules.slice_key(patient, number) for patient, number in pairs]


def slice_positions(rows: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    """Return (patient, positions of its slices in its arrays), sorted by patient.

    Args:
        rows: some rows of `accepted_slices`; their order within a patient is kept.
    """
    return [(str(name), group.position.to_numpy()) for name, group in rows.groupby("patient")]
