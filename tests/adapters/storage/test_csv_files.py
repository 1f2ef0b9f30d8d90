import pandas as pd
import pytest

from pipeline.adapters.storage import csv_files
from pipeline.errors import GliaflowError


def test_tables_round_trip_to_the_last_bit(tmp_path):
    table = pd.DataFrame(
        {
            "patient": ["0012", "NA", "TCGA_CS_1"],
            "site": ["?", "NA", "CS"],
            "share": [0.1, 1 / 3, 1e-300],
            "tumour_pixels": [0, 5, 10**9],
            "note": ["comma, quote \"x\"", None, "Größe"],
        }
    )  # fmt: skip
    csv_files.write_table(tmp_path / "table.csv", table)
    read = csv_files.read_table(tmp_path / "table.csv")
    assert list(read.patient) == ["0012", "NA", "TCGA_CS_1"]
    assert list(read.site) == ["?", "NA", "CS"]
    assert list(read.share) == [0.1, 1 / 3, 1e-300]
    assert list(read.tumour_pixels) == [0, 5, 10**9]
    assert read.note[0] == 'comma, quote "x"'
    assert pd.isna(read.note[1])


def test_tables_have_the_same_line_ending_on_every_system(tmp_path):
    csv_files.write_table(tmp_path / "table.csv", pd.DataFrame({"patient": ["a", "b"]}))
    assert (tmp_path / "table.csv").read_bytes() == b"patient\na\nb\n"


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    csv_files.write_table(tmp_path / "table.csv", pd.DataFrame(columns=["patient", "rule"]))
    read = csv_files.read_table(tmp_path / "table.csv")
    assert (list(read), len(read)) == (["patient", "rule"], 0)


def test_a_missing_table_is_an_error_that_says_what_builds_it(tmp_path):
    with pytest.raises(GliaflowError, match=r"nowhere does not exist; run `dvc repro`"):
        csv_files.read_table(tmp_path / "nowhere")


@pytest.mark.parametrize("body", [b"", b"a,b\n1,2\n1,2,3\n", b"patient\n\xff\xfe\n"])
def test_an_invalid_table_is_an_error_that_names_the_file(tmp_path, body):
    (tmp_path / "manifest.csv").write_bytes(body)
    with pytest.raises(GliaflowError, match=r"manifest.csv is not a valid CSV table"):
        csv_files.read_table(tmp_path / "manifest.csv")


def test_rows_with_more_cells_than_the_header_are_an_error(tmp_path):
    """pandas would take the first cells for names of rows."""
    (tmp_path / "splits.csv").write_text("patient,split\nA,1,train\nB,2,test\n")
    with pytest.raises(GliaflowError, match=r"splits.csv is not a valid CSV table \(its rows have"):
        csv_files.read_table(tmp_path / "splits.csv")


def test_a_folder_in_place_of_a_table_is_an_error(tmp_path):
    with pytest.raises(GliaflowError, match=r"cannot be read \(Is a directory\); expected a CSV"):
        csv_files.read_table(tmp_path)
