import numpy as np
import pandas as pd
import pytest

from pipeline.adapters.storage import csv_files, stage_tables
from pipeline.errors import GliaflowError

A, B, C = "TCGA_CS_1", "TCGA_CS_10", "TCGA_DU_2"
# Unsorted; B's second row is in conflict with its first, and C is unreadable.
MANIFEST = pd.DataFrame(
    [
        (B, 3, 0, None),
        (B, 3, 7, "other content"),
        (A, 10, 5, None),
        (A, 2, 0, None),
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
    assert columns.to_numpy().tolist() == [[A, 2, 0, 0], [A, 10, 1, 5], [B, 3, 0, 0]]


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
    assert units.to_numpy().tolist() == [[A, 2], [A, 10], [B, 3]]
    assert stage_tables.unit_names(units) == [f"{A}/2", f"{A}/10", f"{B}/3"]


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
def test_a_split_without_its_columns_is_an_error_that_lists_those_found(splits, header):
    path = splits(header=header)
    columns = header.replace(",", ", ")
    with pytest.raises(GliaflowError, match=rf"has the columns {columns}; expected patient and"):
        stage_tables.check_disjoint(path, by_slice=False)


def test_an_unknown_split_is_an_error_with_its_name(splits):
    with pytest.raises(GliaflowError, match=r"unknown split 'trian'"):
        stage_tables.check_disjoint(splits(f"{A},trian"), by_slice=False)


def test_every_slice_gets_the_split_of_its_patient(accepted, splits):
    joined = stage_tables.join_splits(accepted, splits(f"{B},test", f"{A},train"))
    assert list(joined.split) == ["train", "train", "test"]


def test_every_slice_gets_its_own_split_if_slices_are_split(accepted, splits):
    path = splits(f"{A},2,test", f"{A},10,train", f"{B},3,test", header="patient,slice,split")
    assert list(stage_tables.join_splits(accepted, path).split) == ["test", "train", "test"]


def test_a_patient_without_a_split_is_an_error(accepted, splits):
    with pytest.raises(GliaflowError, match=rf"csv has no split for {B}; run `dvc repro split`"):
        stage_tables.join_splits(accepted, splits(f"{A},train"))


def test_positions_are_grouped_by_patient(accepted):
    grouped = stage_tables.slice_positions(accepted)
    assert [(patient, list(positions)) for patient, positions in grouped] == [(A, [0, 1]), (B, [0])]
