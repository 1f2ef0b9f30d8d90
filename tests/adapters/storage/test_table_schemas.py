import re

import pandas as pd
import pytest

from pipeline.adapters.storage import table_schemas
from pipeline.adapters.storage.table_schemas import Column, Schema
from pipeline.errors import GliaflowError

SCHEMA = Schema(
    "count",
    {
        "patient": Column("patient"),
        "slices": Column("whole", highest=100),
        "share": Column("number", highest=1, may_be_empty=True),
        "site": Column("text", may_be_empty=True, is_optional=True),
    },
)


def read(folder, *lines, header="patient,slices,share,site"):
    (folder / "table.csv").write_text("\n".join([header, *lines]) + "\n")
    return table_schemas.read(folder / "table.csv", SCHEMA)


def test_columns_get_their_types(tmp_path):
    table = read(tmp_path, "0012,7,,CS", "B,1e2,1,")
    assert list(table.patient) == ["0012", "B"]
    assert table.slices.dtype == "int64" and list(table.slices) == [7, 100]
    assert table.share.dtype == "float64" and pd.isna(table.share[0])


def test_whole_numbers_with_empty_cells_stay_floats(tmp_path):
    schema = Schema("count", {"slices": Column("whole", may_be_empty=True)})
    (tmp_path / "table.csv").write_text("slices,other\n7,a\n,b\n")
    assert table_schemas.read(tmp_path / "table.csv", schema).slices.dtype == "float64"


def test_other_columns_stay_and_optional_ones_may_be_missing(tmp_path):
    table = read(tmp_path, "A,1,0.5,x", header="patient,slices,share,note")
    assert list(table) == ["patient", "slices", "share", "note"]


def test_a_missing_column_is_an_error_that_lists_those_expected(tmp_path):
    with pytest.raises(
        GliaflowError,
        match=r"table.csv: there is no column slices; expected patient, slices, share: delete the "
        r"file and run `dvc repro count`",
    ):
        read(tmp_path, "A,1", header="patient,share")


@pytest.mark.parametrize(
    "value", ["-1", "101", "1.5", "many", "inf", "nan", "0x1", "1e+30", "True"]
)
def test_a_cell_that_is_no_such_number_is_an_error_with_its_row(tmp_path, value):
    with pytest.raises(
        GliaflowError,
        match=rf"slices in row 2 is '?{re.escape(value)}'?; .* a whole number between 0 and 100",
    ):
        read(tmp_path, "A,1,,", f"B,{value},,")


def test_a_column_of_truth_values_is_not_one_of_numbers(tmp_path):
    with pytest.raises(GliaflowError, match=r"slices in row 1 is True; expected"):
        read(tmp_path, "A,True,,", "B,False,,")


@pytest.mark.parametrize("line", [",1,,", "A,,,"])
def test_an_empty_cell_is_an_error_where_none_may_be(tmp_path, line):
    with pytest.raises(GliaflowError, match=r"(patient|slices) in row 1 is empty; expected"):
        read(tmp_path, line)


@pytest.mark.parametrize("name", ["..", ".", "../B", "A/B", "x" * 201, '"A\nB"'])
def test_a_patient_whose_name_leads_to_another_folder_or_to_none_is_an_error(tmp_path, name):
    with pytest.raises(GliaflowError, match=r"expected the name of a patient's folder") as error:
        read(tmp_path, f"{name},1,,")
    assert str(error.value).isprintable()


def test_a_long_cell_is_cut_off_in_the_message(tmp_path):
    with pytest.raises(GliaflowError) as error:
        read(tmp_path, f"A,{'x' * 5000},,")
    assert len(str(error.value)) < 500


def test_a_table_without_rows_is_an_error_where_it_must_have_some(tmp_path):
    schema = Schema("count", SCHEMA.columns, has_rows=True)
    (tmp_path / "table.csv").write_text("patient,slices,share\n")
    with pytest.raises(GliaflowError, match=r"table.csv: it has no rows; expected at least one"):
        table_schemas.read(tmp_path / "table.csv", schema)
    assert read(tmp_path).empty
