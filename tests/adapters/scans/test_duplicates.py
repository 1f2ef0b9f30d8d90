import pytest
from scan_sources import CS, KAGGLE_TWICE, error_of, make_folder, make_zip


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_two_copies_of_a_slice_that_differ_are_an_error_that_names_both(tmp_path, raw, kind):
    entries = KAGGLE_TWICE | {f"lgg-mri-segmentation/kaggle_3m/{CS}/{CS}_1.tif": b"another slice"}
    make = make_folder if kind == "folder" else make_zip
    source = make(tmp_path / "lgg", entries)
    message = error_of(source, raw)
    assert f"kaggle_3m/{CS}/{CS}_1.tif and " in message
    assert f"lgg-mri-segmentation/kaggle_3m/{CS}/{CS}_1.tif are" in message
