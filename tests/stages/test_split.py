from pathlib import Path

import pandas as pd
import pytest
from making import parameters

from pipeline.adapters.storage import csv_files, stage_tables
from pipeline.domain.splits import split_of
from pipeline.errors import GliaflowError
from pipeline.stages import split

PATIENTS = [f"TCGA_CS_{number}" for number in range(1, 31)]
A, B = PATIENTS[:2]
SECTION = {"salt": "fixed", "validation": 0.25, "test": 0.25}
# With the salt "fixed", from splits.hash_position. If these change, every patient is assigned anew.
ASSIGNED = {"TCGA_CS_1": "train", "TCGA_CS_2": "validation", "TCGA_CS_4": "test"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Thirty patients of three slices, the third with tumour; nobody in quarantine."""
    rows = [(patient, number) for patient in PATIENTS for number in (1, 2, 3)]
    table = pd.DataFrame(rows, columns=["patient", "slice"])
    table["conflict"] = None
    table["tumour_pixels"] = [9 if number == 3 else 0 for number in table.slice]
    csv_files.write_table(tmp_path / "manifest.csv", table)
    write_quarantine(tmp_path)
    return tmp_path


def write_quarantine(folder: Path, *patients: str) -> None:
    csv_files.write_table(
        folder / "quarantine.csv", pd.DataFrame({"patient": list(patients), "rule": "shape"})
    )


def run(folder: Path, **changed: object) -> pd.DataFrame:
    split.run(
        parameters(split=SECTION | changed),
        manifest=folder / "manifest.csv",
        quarantine=folder / "quarantine.csv",
        splits=folder / "splits.csv",
    )
    return csv_files.read_table(folder / "splits.csv")


def accepted_slices(folder: Path) -> pd.DataFrame:
    return stage_tables.accepted_slices(folder / "manifest.csv", folder / "quarantine.csv")


def with_split(folder: Path) -> pd.DataFrame:
    return stage_tables.join_splits(accepted_slices(folder), folder / "splits.csv")


def rewrite(folder: Path, *lines: str, header: str = "patient,split") -> None:
    (folder / "splits.csv").write_text("\n".join([header, *lines]) + "\n")


def test_every_patient_is_assigned_once_and_no_split_is_empty(folder):
    assigned = run(folder)
    assert list(assigned) == ["patient", "split"]
    assert sorted(assigned.patient) == sorted(PATIENTS)
    assert set(assigned.split) == {"train", "validation", "test"}


def test_no_patient_appears_in_two_splits(folder):
    run(folder)
    joined = with_split(folder)
    assert len(joined) == 90
    assert (joined.groupby("patient").split.nunique() == 1).all()


def test_splits_depend_only_on_name_and_salt(folder):
    assigned = run(folder).set_index("patient").split
    assert {patient: assigned[patient] for patient in ASSIGNED} == ASSIGNED


def test_additional_patients_move_nobody_to_another_split(folder):
    before = run(folder)
    table = csv_files.read_table(folder / "manifest.csv")
    newcomer = table[table.patient == A].assign(patient="TCGA_AA_1")
    csv_files.write_table(folder / "manifest.csv", pd.concat([newcomer, table]))
    after = run(folder)
    assert len(after) == 31
    assert after[after.patient != "TCGA_AA_1"].reset_index(drop=True).equals(before)


def test_patients_in_quarantine_get_no_split(folder):
    write_quarantine(folder, A, B)
    assigned = run(folder)
    assert sorted(assigned.patient) == sorted(PATIENTS[2:])
    assert not with_split(folder).patient.isin([A, B]).any()


def test_with_unit_slice_every_slice_is_assigned_by_itself(folder):
    assigned = run(folder, unit="slice")
    assert list(assigned) == ["patient", "slice", "split"]
    assert len(assigned) == 90
    assert not assigned.duplicated(["patient", "slice"]).any()
    assert assigned.groupby("patient").split.nunique().max() > 1
    joined = with_split(folder)
    assert len(joined) == 90
    assert joined.split[0] == split_of(f"{A}/1", salt="fixed", validation=0.25, test=0.25)


def test_two_runs_give_the_same_bytes(folder):
    run(folder)
    first = (folder / "splits.csv").read_bytes()
    run(folder)
    assert (folder / "splits.csv").read_bytes() == first


def test_patients_named_by_numbers_keep_their_names(folder):
    table = csv_files.read_table(folder / "manifest.csv")
    csv_files.write_table(folder / "manifest.csv", table.replace({"patient": {A: "0012"}}))
    assert "0012" in set(run(folder).patient)
    assert len(with_split(folder)) == 90


def test_a_file_with_a_patient_in_two_splits_is_refused(folder):
    assigned = run(folder)
    lines = [f"{row.patient},{row.split}" for row in assigned.itertuples()]
    other = "test" if assigned.split[0] == "train" else "train"
    rewrite(folder, *lines, f"{assigned.patient[0]},{other}")
    with pytest.raises(GliaflowError, match=rf"splits.csv: {assigned.patient[0]} is in two splits"):
        with_split(folder)


def test_a_patient_listed_twice_with_the_same_split_counts_once(folder):
    lines = [f"{row.patient},{row.split}" for row in run(folder).itertuples()]
    before = with_split(folder)
    rewrite(folder, *lines, lines[0])
    assert with_split(folder).equals(before)


def test_a_file_with_a_slice_in_two_splits_is_refused(folder):
    run(folder, unit="slice")
    with (folder / "splits.csv").open("a") as stream:
        stream.writelines(f"{A},1,{split}\n" for split in ("train", "test"))
    with pytest.raises(GliaflowError, match=rf"{A}/1 is in two splits"):
        with_split(folder)


def test_a_file_without_a_split_for_a_patient_is_refused(folder):
    lines = [f"{row.patient},{row.split}" for row in run(folder).itertuples()]
    missing = lines.pop(4).split(",")[0]
    rewrite(folder, *lines)
    with pytest.raises(GliaflowError, match=rf"splits.csv has no split for {missing}; run"):
        with_split(folder)


def test_a_file_with_an_unknown_split_is_refused(folder):
    rewrite(folder, *(f"{patient},trian" for patient in PATIENTS))
    with pytest.raises(GliaflowError, match=r"splits.csv: unknown split 'trian'"):
        with_split(folder)


def test_a_file_with_an_empty_split_is_refused(folder):
    rewrite(folder, *(f"{patient},train" for patient in PATIENTS[1:]), f"{A},")
    with pytest.raises(GliaflowError, match=r"splits.csv"):
        with_split(folder)


def test_a_file_without_the_column_split_is_refused(folder):
    rewrite(folder, *PATIENTS, header="patient")
    with pytest.raises(GliaflowError, match=r"splits.csv"):
        with_split(folder)


def test_positions_count_from_the_lowest_slice_of_each_patient(folder):
    run(folder)
    table = csv_files.read_table(folder / "manifest.csv").iloc[::-1]
    csv_files.write_table(folder / "manifest.csv", table)
    accepted = accepted_slices(folder)
    assert list(accepted.patient[:3]) == [A] * 3
    assert list(accepted.slice[:3]) == [1, 2, 3]
    assert list(accepted.position[:3]) == [0, 1, 2]
    chosen = stage_tables.slice_positions(accepted[accepted.tumour_pixels > 0])
    assert [(patient, list(positions)) for patient, positions in chosen[:2]] == [
        (A, [2]),
        ("TCGA_CS_10", [2]),
    ]
