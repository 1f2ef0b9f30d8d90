"""Deal the accepted patients (or slices) into train, validation and test; sticky by name."""

from pathlib import Path

import pandas as pd

from pipeline.adapters import files, tables
from pipeline.domain import splits as rules
from pipeline.params import Params


def run(params: Params, *, manifest: Path, quarantine: Path, splits: Path) -> None:
    """Write splits.csv, then check from the file itself that nothing is on two sides."""
    accepted = tables.accepted(manifest, quarantine)
    wanted = params.split
    by_slice = wanted.unit == "slice"
    columns = ["patient", "slice"] if by_slice else ["patient"]
    units = accepted[columns].drop_duplicates().sort_values(columns)
    names = [
        rules.slice_key(*unit) if by_slice else unit[0] for unit in units.itertuples(index=False)
    ]
    dealt = [
        rules.split_of(name, salt=wanted.salt, validation=wanted.validation, test=wanted.test)
        for name in names
    ]
    files.write_table(splits, units.assign(split=dealt))
    tables.check_sides(splits, by_slice=by_slice)
    _say(accepted, tables.with_split(accepted, splits), wanted.unit)


def _say(accepted: pd.DataFrame, dealt: pd.DataFrame, unit: str) -> None:
    def counted(column: pd.Series) -> str:
        return "/".join(str(column.get(name, 0)) for name in rules.SPLITS)

    patients = counted(dealt.groupby("split").patient.nunique())
    slices = counted(dealt.groupby("split").size())
    share = (accepted.tumour_pixels > 0).mean()
    print(
        f"split: by {unit}, train/validation/test: {patients} patients, {slices} slices, "
        f"{share:.0%} tumour slices"
    )
