import numpy as np
import pandas as pd
import pytest

from pipeline.adapters.storage import csv_files, stage_tables
from pipeline.errors import GliaflowError

A, B, C = "TCGA_CS_1", "TCGA_CS_10", "TCGA_DU_2"
# Unsorted; B's second row is in conflict with its first, and C is unreadable.
MANIFEST = pd.DataFrame(
    [
        (B, 0, 0, None),
        (B, 0, 7, "other content"),
        *((A, number, 5 if number == 10 else 0, None) for number in range(10, 0, -1)),
        (C, 1, None, None),
    ],
    columns=["patient", "slice", "tumour_pixels", "conflict"],
)
QUARANTINE = pd.DataFrame({"patient": [B, C], "rule": ["conflict", "unreadable"]})


@pytest.fixture
def accepted(tmp_path):
    csv_files.write_table(tmp_path / "manifest.csv", MANIFEST)
    csv_files.write_table(tmp_path / "quarantine.csv", QUARANTINE)
    return stage_tables.accepted_slices(tmp_path / "manifest.csv", tmp_path / "quarantine.csv")


@pytest.fixture
def splits(tmp_path):
    """A function that writes splits.csv."""

    def write(*lines, header="patient,split"):
        (tmp_path / "splits.csv").write_text("\n".join([header, *lines]) + "\n")
        return tmp_path / "splits.csv"

    return write


def test_accepted_slices_are_sorted_by_number_with_their_position_in_the_arrays(accepted):
    columns = accepted[["patient", "slice", "position", "tumour_pixels"]]
    first, *_, ninth, tenth, other = columns.to_numpy().tolist()
    assert first == [A, 1, 0, 0]
    assert (ninth, tenth) == ([A, 9, 8, 0], [A, 10, 9, 5])
    assert other == [B, 0, 0, 0]


def test_accepted_slices_hold_whole_numbers(accepted):
    assert accepted.slice.dtype == accepted.tumour_pixels.dtype == np.int64


def test_a_conflict_keeps_no_patient_out():
    assert stage_tables.quarantined_patients(QUARANTINE) == {C}
    assert stage_tables.quarantined_patients(QUARANTINE[:0]) == set()


def test_units_are_patients_each_once_in_order(accepted):
    units = stage_tables.split_units(accepted[::-1], "patient")
    assert list(units) == ["patient"]
    assert list(units.patient) == [A, B]
    assert stage_tables.unit_names(units) == [A, B]


def test_units_are_slices_each_once_in_order_of_their_numbers(accepted):
    units = stage_tables.split_units(pd.concat([accepted[::-1], accepted]), "slice")
    assert list(units) == ["patient", "slice"]
    assert units.to_numpy().tolist() == [*([A, number] for number in range(1, 11)), [B, 0]]
    assert stage_tables.unit_names(units)[8:] == [f"{A}/9", f"{A}/10", f"{B}/0"]


def test_no_rows_give_no_units(accepted):
    for unit in ("patient", "slice"):
        units = stage_tables.split_units(accepted[:0], unit)
        assert stage_tables.unit_names(units) == []


def test_patients_in_one_split_each_are_disjoint(splits):
    stage_tables.check_disjoint(splits(f"{A},train", f"{B},test"), by_slice=False)


def test_a_patient_may_be_listed_twice_with_the_same_split(splits):
    stage_tables.check_disjoint(splits(f"{A},train", f"{A},train"), by_slice=False)


def test_a_patient_in_two_splits_is_an_error_with_the_number_of_such_patients(splits):
    path = splits(f"{B},test", f"{A},train", f"{A},test", f"{B},validation", f"{C},train")
    with pytest.raises(GliaflowError, match=rf"csv: {A} is in two splits \(2 such units in total"):
        stage_tables.check_disjoint(path, by_slice=False)


def test_a_slice_in_two_splits_is_an_error_and_a_patient_in_two_is_not(splits):
    header = "patient,slice,split"
    path = splits(f"{A},1,train", f"{A},2,test", header=header)
    stage_tables.check_disjoint(path, by_slice=True)
    path = splits(f"{A},1,train", f"{A},1,test", header=header)
    with pytest.raises(GliaflowError, match=rf"{A}/1 is in two splits"):
        stage_tables.check_disjoint(path, by_slice=True)


@pytest.mark.parametrize("header", ["patient", "split", "name,split"])
def test_a_split_without_its_columns_is_an_error_that_names_the_one_that_is_missing(splits, header):
    missing = "split" if header == "patient" else "patient"
    with pytest.raises(
        GliaflowError, match=rf"csv: there is no column {missing}; expected patient, split: delete"
    ):
        stage_tables.check_disjoint(splits(header=header), by_slice=False)


def test_a_split_of_slices_without_their_numbers_is_an_error(splits):
    with pytest.raises(GliaflowError, match=r"no column slice; expected patient, slice, split"):
        stage_tables.check_disjoint(splits(f"{A},train"), by_slice=True)


def test_an_unknown_split_is_an_error_with_its_name(splits):
    with pytest.raises(GliaflowError, match=r"unknown split 'trian'"):
        stage_tables.check_disjoint(splits(f"{A},trian"), by_slice=False)


def test_every_slice_gets_the_split_of_its_patient(accepted, splits):
    joined = stage_tables.join_splits(accepted, splits(f"{B},test", f"{A},train"))
    assert list(joined.split) == ["train"] * 10 + ["test"]


def test_every_slice_gets_its_own_split_if_slices_are_split(accepted, splits):
    of_a = [f"{A},{number},{'test' if number == 2 else 'train'}" for number in range(1, 11)]
    path = splits(*of_a, f"{B},0,test", header="patient,slice,split")
    expected = ["train", "test", *["train"] * 8, "test"]
    assert list(stage_tables.join_splits(accepted, path).split) == expected


def test_other_columns_of_a_split_do_not_count(accepted, splits):
    lines = [f"{A},train,first", f"{A},train,second", f"{B},test,"]
    joined = stage_tables.join_splits(accepted, splits(*lines, header="patient,split,note"))
    assert list(joined.split) == ["train"] * 10 + ["test"]
    assert "note" not in joined


def test_a_patient_without_a_split_is_an_error(accepted, splits):
    with pytest.raises(GliaflowError, match=rf"csv has no split for {B}; run `dvc repro split`"):
        stage_tables.join_splits(accepted, splits(f"{A},train"))


def test_positions_are_grouped_by_patient(accepted):
    grouped = stage_tables.slice_positions(accepted)
    assert [(name, list(positions)) for name, positions in grouped] == [(A, [*range(10)]), (B, [0])]


def accept(folder, manifest, quarantine=QUARANTINE):
    csv_files.write_table(folder / "manifest.csv", manifest)
    csv_files.write_table(folder / "quarantine.csv", quarantine)
    return stage_tables.accepted_slices(folder / "manifest.csv", folder / "quarantine.csv")


@pytest.mark.parametrize("row", [5, 11])
def test_a_missing_row_of_an_accepted_patient_is_an_error(tmp_path, row):
    """Without it, the positions of later slices would be those of others."""
    with pytest.raises(GliaflowError, match=rf"manifest.csv: {A}: slice {12 - row} not there"):
        accept(tmp_path, MANIFEST.drop(index=row))


def test_a_repeated_row_of_an_accepted_patient_is_an_error(tmp_path):
    repeated = pd.concat([MANIFEST, MANIFEST[5:6]])
    with pytest.raises(GliaflowError, match=rf"{A}: slice 7 twice; expected every slice"):
        accept(tmp_path, repeated)


def test_an_accepted_slice_of_unknown_tumour_size_is_an_error_with_its_row(tmp_path):
    with pytest.raises(
        GliaflowError, match=r"manifest.csv: tumour_pixels in row 13 is empty; expected .*ne.csv"
    ):
        accept(tmp_path, MANIFEST, QUARANTINE[:0])


def test_a_manifest_with_a_tumour_larger_than_its_mask_is_an_error(tmp_path):
    """Masks of several channels count every value."""
    sizes = {"mask_height": 2, "mask_width": 1, "mask_channels": 3}
    table = MANIFEST.assign(**sizes)
    csv_files.write_table(tmp_path / "fits.csv", table.assign(tumour_pixels=6))
    assert len(stage_tables.read_manifest(tmp_path / "fits.csv")) == 13
    csv_files.write_table(tmp_path / "manifest.csv", table)
    with pytest.raises(GliaflowError, match=r"tumour_pixels in row 2 is 7; expected at most the"):
        stage_tables.read_manifest(tmp_path / "manifest.csv")


def test_a_manifest_without_rows_is_an_error(tmp_path):
    csv_files.write_table(tmp_path / "manifest.csv", MANIFEST[:0])
    with pytest.raises(GliaflowError, match=r"manifest.csv: it has no rows; expected at least one"):
        stage_tables.read_manifest(tmp_path / "manifest.csv")


def test_a_quarantine_without_rows_and_a_history_without_epochs_are_read(tmp_path):
    csv_files.write_table(tmp_path / "quarantine.csv", QUARANTINE[:0])
    assert stage_tables.read_quarantine(tmp_path / "quarantine.csv").empty
    columns = ["network", "epoch", "loss", "val_loss", "val_tversky", "learning_rate"]
    csv_files.write_table(tmp_path / "history.csv", pd.DataFrame(columns=columns))
    assert stage_tables.read_history(tmp_path / "history.csv").empty


def scores(**changed):
    row = {
        "patient": A, "split": "test", "site": "CS", "tversky": 0.5, "dice": 0.5,
        "sensitivity": 1.0, "precision": 0.5, "slices": 3, "tumour_slices": 1, "tumour_pixels": 5,
        "predicted_pixels": 9, "false_alarm_slices": 0, "missing": "none", "size_group": "small",
    }  # fmt: skip
    return pd.DataFrame([row | changed])


def test_scores_are_read_where_a_patient_has_slices_in_two_splits(tmp_path):
    table = pd.concat([scores(), scores(split="validation")])
    csv_files.write_table(tmp_path / "patients.csv", table)
    read = stage_tables.read_patients(tmp_path / "patients.csv")
    assert read.to_dict("records") == table.to_dict("records")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (scores(tversky=1.5), r"tversky in row 1 is 1.5; expected a number between 0 and 1"),
        (scores(split="tset"), r"split in row 1 is 'tset'; expected one of train, validation, te"),
        (scores(slices=0), r"slices in row 1 is 0; expected a whole number of at least 1"),
        (scores(site=None), r"site in row 1 is empty; expected a text"),
        (scores()[:0], r"it has no rows"),
        (pd.concat([scores(), scores()]), rf"patient in row 2 is '{A}'; expected one row per pati"),
    ],
)
def test_impossible_scores_are_an_error_with_the_row(tmp_path, table, message):
    csv_files.write_table(tmp_path / "patients.csv", table)
    with pytest.raises(GliaflowError, match=rf"patients.csv: {message}.* run `dvc repro evaluate`"):
        stage_tables.read_patients(tmp_path / "patients.csv")
