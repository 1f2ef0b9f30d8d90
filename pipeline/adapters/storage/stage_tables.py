"""Read and join the tables that stages hand on: manifest, quarantine, splits, scores."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.adapters.storage import table_schemas
from pipeline.domain import scans
from pipeline.domain import splits as split_rules
from pipeline.errors import GliaflowError


def read_manifest(path: Path) -> pd.DataFrame:
    """Read the manifest: at least one slice.

    Raises:
        GliaflowError: the table cannot be read, lacks a column or holds an impossible value,
            such as a tumour that is larger than its mask.
    """
    table = table_schemas.read(path, table_schemas.MANIFEST)
    size = ["mask_height", "mask_width", "mask_channels"]
    if set(size) <= set(table.columns):
        is_bad = table.tumour_pixels > table[size].prod(axis=1, skipna=False)
        expected = "at most the size of the mask"
        table_schemas.check_cells(table.tumour_pixels, is_bad, path, "ingest", expected=expected)
    return table


def read_quarantine(path: Path) -> pd.DataFrame:
    """Read the quarantine; raises as `read_manifest`."""
    return table_schemas.read(path, table_schemas.QUARANTINE)


def read_history(path: Path) -> pd.DataFrame:
    """Read the training history; raises as `read_manifest`."""
    return table_schemas.read(path, table_schemas.HISTORY)


def read_patients(path: Path) -> pd.DataFrame:
    """Read the scores of the patients; raises as `read_manifest`, or if a patient is there twice.

    Where slices were split, a patient has a row in every split.
    """
    table = table_schemas.read(path, table_schemas.PATIENTS)
    is_repeated = table.duplicated(["patient", "split"])
    expected = "one row per patient and split"
    table_schemas.check_cells(table.patient, is_repeated, path, "evaluate", expected=expected)
    return table


def accepted_slices(manifest: Path, quarantine: Path) -> pd.DataFrame:
    """Read the manifest's rows of patients who are not in quarantine.

    Returns:
        Rows sorted by patient and slice, without those in conflict, with the added column
        `position`: index of the slice in its patient's arrays.

    Raises:
        GliaflowError: a table cannot be used, see `read_manifest`; or slices of an accepted
            patient are missing or repeated, so that positions would be those of other slices.
    """
    table = read_manifest(manifest)
    table = table[~table.patient.isin(quarantined_patients(read_quarantine(quarantine)))]
    table = table[table.conflict.isna()]
    _check_accepted(table, manifest, quarantine)
    table = table.astype({"slice": int, "tumour_pixels": int})
    table = table.sort_values(["patient", "slice"], ignore_index=True)
    return table.assign(position=table.groupby("patient").cumcount())


def _check_accepted(table: pd.DataFrame, manifest: Path, quarantine: Path) -> None:
    """Make sure that every slice of accepted patients is there once, with its tumour's size."""
    for column in ("slice", "tumour_pixels"):
        cells = table[column]
        expected = f"a number, or the patient in {quarantine}"
        table_schemas.check_cells(cells, cells.isna(), manifest, "validate", expected=expected)
    for patient, numbers in table.groupby("patient").slice:
        fault = scans.numbering_fault(int(number) for number in numbers)
        if fault:
            raise table_schemas.refuse(
                manifest, "ingest", f"{patient}: {fault}", expected="every slice of a patient once"
            )


def quarantined_patients(quarantine: pd.DataFrame) -> set[str]:
    """Return the patients that are kept out; a conflict keeps out only the slice in conflict."""
    return set(quarantine.patient[quarantine.rule != scans.CONFLICT])


def join_splits(rows: pd.DataFrame, splits: Path) -> pd.DataFrame:
    """Add the column `split` to rows of slices, whether patients or slices were split.

    Args:
        rows: slices, with patient and slice.
        splits: file that the stage `split` wrote.

    Raises:
        GliaflowError: as `check_disjoint`; or a slice has no split.
    """
    assigned = table_schemas.read(splits, table_schemas.SPLITS)
    keys = ["patient", "slice"] if "slice" in assigned.columns else ["patient"]
    _check_units(assigned, keys, splits)
    units = assigned[[*keys, "split"]].drop_duplicates()
    joined = rows.merge(units, on=keys, how="left", validate="many_to_one")
    if joined.split.isna().any():
        patient = joined.patient[joined.split.isna()].iloc[0]
        raise GliaflowError(f"{splits} has no split for {patient}; run `dvc repro split`")
    return joined


def check_disjoint(splits: Path, *, by_slice: bool) -> None:
    """Read a written split back and check that no unit is in two splits.

    Args:
        by_slice: units are slices, not patients.

    Raises:
        GliaflowError: a unit is in two splits, a column is missing, a value is impossible, or
            a split has an unknown name.
    """
    assigned = table_schemas.read(splits, table_schemas.SPLITS)
    if by_slice and "slice" not in assigned.columns:
        raise table_schemas.refuse(
            splits, "split", "there is no column slice", expected="patient, slice, split"
        )
    _check_units(assigned, ["patient", "slice"] if by_slice else ["patient"], splits)


def _check_units(assigned: pd.DataFrame, keys: list[str], splits: Path) -> None:
    names = unit_names(assigned[keys])
    repeated = split_rules.in_several_splits(zip(names, assigned.split, strict=True))
    if repeated:
        raise GliaflowError(
            f"{splits}: {repeated[0]} is in two splits ({len(repeated)} such units in total); "
            "expected each in one: delete the file and run `dvc repro split`"
        )
    unknown = sorted(set(assigned.split) - set(split_rules.SPLITS))
    if unknown:
        raise table_schemas.refuse(
            splits,
            "split",
            f"unknown split {unknown[0]!r}",
            expected=f"one of {', '.join(split_rules.SPLITS)}",
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
