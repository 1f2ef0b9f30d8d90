"""The tables that stages hand on, read and joined in one way: manifest, quarantine, splits."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.adapters import files
from pipeline.domain import splits as rules
from pipeline.domain.scans import CONFLICT
from pipeline.errors import GliaflowError


def accepted(manifest: Path, quarantine: Path) -> pd.DataFrame:
    """The manifest's rows of patients who are not in quarantine, with `position` in the arrays."""
    table = files.read_table(manifest)
    table = table[~table.patient.isin(kept_out(files.read_table(quarantine)))]
    table = table[table.conflict.isna()].astype({"slice": int, "tumour_pixels": int})
    table = table.sort_values(["patient", "slice"], ignore_index=True)
    return table.assign(position=table.groupby("patient").cumcount())


def kept_out(quarantine: pd.DataFrame) -> set[str]:
    """Patients whom a broken rule keeps out; a conflict keeps out slices alone."""
    return set(quarantine.patient[quarantine.rule != CONFLICT])


def with_split(rows: pd.DataFrame, splits: Path) -> pd.DataFrame:
    """Join each slice with its split, whether patients or slices were dealt.

    Raises:
        GliaflowError: a patient is on two sides of a split by patient; or a slice has none.
    """
    dealt = files.read_table(splits).drop_duplicates()
    by_slice = "slice" in dealt.columns
    check_sides(splits, by_slice=by_slice)
    keys = ["patient", "slice"] if by_slice else ["patient"]
    joined = rows.merge(dealt, on=keys, how="left", validate="many_to_one")
    if joined.split.isna().any():
        patient = joined.patient[joined.split.isna()].iloc[0]
        raise GliaflowError(f"{splits} has no split for {patient}; run `dvc repro split`")
    return joined


def check_sides(splits: Path, *, by_slice: bool) -> None:
    """Read a written split back and make sure that nothing stands on two sides.

    Raises:
        GliaflowError: something does, or a split has an unknown name.
    """
    dealt = files.read_table(splits)
    if not {"patient", "split"} <= set(dealt.columns):
        raise GliaflowError(
            f"{splits} has the columns {', '.join(dealt.columns)}; expected patient and split: "
            "delete it and run `dvc repro split`"
        )
    names = (
        [rules.slice_key(p, s) for p, s in zip(dealt.patient, dealt.slice, strict=True)]
        if by_slice
        else dealt.patient
    )
    doubled = rules.on_two_sides(zip(names, dealt.split, strict=True))
    if doubled:
        raise GliaflowError(
            f"{splits}: {doubled[0]} is in two splits ({len(doubled)} such in all); expected each "
            "in one: delete the file and run `dvc repro split`"
        )
    unknown = set(dealt.split) - set(rules.SPLITS)
    if unknown:
        raise GliaflowError(f"{splits}: unknown split {sorted(map(str, unknown))[0]!r}")


def positions(rows: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    """(patient, positions of the chosen slices in its arrays), patients in order of name."""
    return [(str(name), group.position.to_numpy()) for name, group in rows.groupby("patient")]
