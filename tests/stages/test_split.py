from pathlib import Path

import pandas as pd
import pytest
from making import parameters

from pipeline.adapters import files, tables
from pipeline.domain.splits import split_of
from pipeline.errors import GliaflowError
from pipeline.stages import split

PATIENTS = [f"TCGA_CS_{number}" for number in range(1, 31)]
A, B = PATIENTS[:2]
WANTED = {"salt": "fixed", "validation": 0.25, "test": 0.25}
# With the salt «fixed»; worked out by splits.position: a change here deals every patient anew.
DEALT = {"TCGA_CS_1": "train", "TCGA_CS_2": "validation", "TCGA_CS_4": "test"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Thirty patients of three slices, the third with tumour; nobody in quarantine."""
    rows = [(patient, number) for patient in PATIENTS for number in (1, 2, 3)]
    table = pd.DataFrame(rows, columns=["patient", "slice"])
    table["conflict"] = None
    table["tumour_pixels"] = [9 if number == 3 else 0 for number in table.slice]
    files.write_table(tmp_path / "manifest.csv", table)
    keep_out(tmp_path)
    return tmp_path


def keep_out(folder: Path, *patients: str) -> None:
    files.write_table(
        folder / "quarantine.csv", pd.DataFrame({"patient": list(patients), "rule": "shape"})
    )


def run(folder: Path, **changed: object) -> pd.DataFrame:
    split.run(
        parameters(split=WANTED | changed),
        manifest=folder / "manifest.csv",
        quarantine=folder / "quarantine.csv",
        splits=folder / "splits.csv",
    )
    return files.read_table(folder / "splits.csv")


def rows(folder: Path) -> pd.DataFrame:
    return tables.accepted(folder / "manifest.csv", folder / "quarantine.csv")


def with_split(folder: Path) -> pd.DataFrame:
    return tables.with_split(rows(folder), folder / "splits.csv")


def rewrite(folder: Path, *lines: str, header: str = "patient,split") -> None:
    (folder / "splits.csv").write_text("\n".join([header, *lines]) + "\n")


def test_every_patient_is_dealt_once_and_all_splits_have_some(folder):
    dealt = run(folder)
    assert list(dealt) == ["patient", "split"]
    assert sorted(dealt.patient) == sorted(PATIENTS)
    assert set(dealt.split) == {"train", "validation", "test"}


def test_no_patient_appears_in_two_splits(folder):
    run(folder)
    joined = with_split(folder)
    assert len(joined) == 90
    assert (joined.groupby("patient").split.nunique() == 1).all()


def test_sides_depend_on_name_and_salt_alone(folder):
    dealt = run(folder).set_index("patient").split
    assert {patient: dealt[patient] for patient in DEALT} == DEALT


def test_more_patients_leave_the_sides_of_those_who_were_there(folder):
    before = run(folder)
    table = files.read_table(folder / "manifest.csv")
    newcomer = table[table.patient == A].assign(patient="TCGA_AA_1")
    files.write_table(folder / "manifest.csv", pd.concat([newcomer, table]))
    after = run(folder)
    assert len(after) == 31
    assert after[after.patient != "TCGA_AA_1"].reset_index(drop=True).equals(before)


def test_quarantined_patients_are_not_dealt(folder):
    keep_out(folder, A, B)
    dealt = run(folder)
    assert sorted(dealt.patient) == sorted(PATIENTS[2:])
    assert not with_split(folder).patient.isin([A, B]).any()


def test_unit_slice_deals_slices_each_by_itself(folder):
    dealt = run(folder, unit="slice")
    assert list(dealt) == ["patient", "slice", "split"]
    assert len(dealt) == 90
    assert not dealt.duplicated(["patient", "slice"]).any()
    assert dealt.groupby("patient").split.nunique().max() > 1
    joined = with_split(folder)
    assert len(joined) == 90
    assert joined.split[0] == split_of(f"{A}/1", salt="fixed", validation=0.25, test=0.25)


def test_two_runs_give_the_same_bytes(folder):
    run(folder)
    first = (folder / "splits.csv").read_bytes()
    run(folder)
    assert (folder / "splits.csv").read_bytes() == first


def test_numbers_as_names_of_patients_stay_as_they_are(folder):
    table = files.read_table(folder / "manifest.csv")
    files.write_table(folder / "manifest.csv", table.replace({"patient": {A: "0012"}}))
    assert "0012" in set(run(folder).patient)
    assert len(with_split(folder)) == 90


def test_a_patient_written_on_two_sides_is_refused(folder):
    dealt = run(folder)
    lines = [f"{row.patient},{row.split}" for row in dealt.itertuples()]
    other = "test" if dealt.split[0] == "train" else "train"
    rewrite(folder, *lines, f"{dealt.patient[0]},{other}")
    with pytest.raises(GliaflowError, match=rf"splits.csv: {dealt.patient[0]} is in two splits"):
        with_split(folder)


def test_a_patient_written_twice_on_one_side_counts_once(folder):
    lines = [f"{row.patient},{row.split}" for row in run(folder).itertuples()]
    before = with_split(folder)
    rewrite(folder, *lines, lines[0])
    assert with_split(folder).equals(before)


def test_a_slice_written_on_two_sides_is_refused(folder):
    run(folder, unit="slice")
    with (folder / "splits.csv").open("a") as stream:
        stream.writelines(f"{A},1,{side}\n" for side in ("train", "test"))
    with pytest.raises(GliaflowError, match=rf"{A}/1 is in two splits"):
        with_split(folder)


def test_a_patient_without_a_split_is_refused(folder):
    lines = [f"{row.patient},{row.split}" for row in run(folder).itertuples()]
    missing = lines.pop(4).split(",")[0]
    rewrite(folder, *lines)
    with pytest.raises(GliaflowError, match=rf"splits.csv has no split for {missing}; run"):
        with_split(folder)


def test_a_split_of_another_name_is_refused(folder):
    rewrite(folder, *(f"{patient},trian" for patient in PATIENTS))
    with pytest.raises(GliaflowError, match=r"splits.csv: unknown split 'trian'"):
        with_split(folder)


def test_an_empty_split_is_refused(folder):
    rewrite(folder, *(f"{patient},train" for patient in PATIENTS[1:]), f"{A},")
    with pytest.raises(GliaflowError, match=r"splits.csv"):
        with_split(folder)


def test_a_file_without_splits_is_refused(folder):
    rewrite(folder, *PATIENTS, header="patient")
    with pytest.raises(GliaflowError, match=r"splits.csv"):
        with_split(folder)


def test_positions_count_from_the_lowest_slice_of_each_patient(folder):
    run(folder)
    table = files.read_table(folder / "manifest.csv").iloc[::-1]
    files.write_table(folder / "manifest.csv", table)
    accepted = rows(folder)
    assert list(accepted.patient[:3]) == [A] * 3
    assert list(accepted.slice[:3]) == [1, 2, 3]
    assert list(accepted.position[:3]) == [0, 1, 2]
    chosen = tables.positions(accepted[accepted.tumour_pixels > 0])
    assert [(patient, list(places)) for patient, places in chosen[:2]] == [
        (A, [2]),
        ("TCGA_CS_10", [2]),
    ]
