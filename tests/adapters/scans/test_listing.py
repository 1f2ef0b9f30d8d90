import os
from pathlib import Path

import pytest
from making import content
from scan_sources import CLINICAL, CS, SLICES, copy, error_of, make_folder, make_zip, skipped

from pipeline.adapters.scans.listing import describe_skipped


def test_folders_without_scans_are_named(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES | {"TCGA_X/notes.txt": b"scans follow"})
    (source / "TCGA_Y" / "inner").mkdir(parents=True)
    assert skipped(copy(source, raw)) == {"TCGA_X": "no tif", "TCGA_Y": "no tif"}


def test_what_has_its_place_or_macos_adds_is_no_reason_to_name_a_folder(tmp_path, raw):
    beside = {
        f"{CS}/.DS_Store": b"", f"{CS}/._{CS}_1.tif": b"", f"__MACOSX/{CS}/._{CS}_1.tif": b"",
        "tables/data.csv": CLINICAL, "COMPLETE": b"", "batch.json": b"{}", ".hidden/a": b"",
        "README.md": b"about",
    }  # fmt: skip
    copied = copy(make_folder(tmp_path / "scans", SLICES | beside), raw)
    assert skipped(copied) == {}
    assert content(raw) == SLICES | {"data.csv": CLINICAL}


def test_a_folder_that_is_empty_but_for_what_macos_adds_is_named(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES | {"TCGA_X/.DS_Store": b""})
    assert skipped(copy(source, raw)) == {"TCGA_X": "no tif"}


@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_names_that_cannot_be_used_are_skipped_and_named(tmp_path, raw, make):
    long = "x" * 201
    bad = {
        f"{CS}/{CS}\n_2.tif": b"a", f"bad\x1bname/{CS}/{CS}_3.tif": b"b", f"{long}/P_1.tif": b"c",
    }  # fmt: skip
    copied = copy(make(tmp_path / "scans", SLICES | bad), raw)
    assert content(raw) == SLICES
    assert skipped(copied) == {
        f"'{CS}/{CS}\\n_2.tif'": "its name holds control characters",
        "'bad\\x1bname'": "its name holds control characters",
        long: "its name has 201 bytes, allowed are 200",
    }
    assert describe_skipped(copied.skipped).isprintable()


def test_a_name_of_two_hundred_bytes_is_copied(tmp_path, raw):
    name = f"{'x' * 194}_1.tif"
    assert len(name) == 200
    assert copy(make_folder(tmp_path / "scans", {f"{'x' * 194}/{name}": b"a"}), raw).files == 1


def test_names_that_are_not_valid_utf8_are_skipped_and_named(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES)
    for name in (b"TCGA_\xff", b"TCGA_CS_4941_19960909/TCGA_\xff.tif"):
        path = os.fsencode(source) + b"/" + name
        if name.endswith(b".tif"):
            os.close(os.open(path, os.O_CREAT))
        else:
            Path(os.fsdecode(path)).mkdir()
    copied = copy(source, raw)
    assert content(raw) == SLICES
    assert skipped(copied) == {
        "'TCGA_\\udcff'": "its name is not valid UTF-8",
        f"'{CS}/TCGA_\\udcff.tif'": "its name is not valid UTF-8",
    }
    assert describe_skipped(copied.skipped).isascii()


@pytest.mark.parametrize("name", ["data.csv", "batch.json", "COMPLETE"])
def test_a_patient_with_the_name_of_a_file_that_would_replace_it_is_skipped(tmp_path, raw, name):
    source = make_folder(tmp_path / "scans", SLICES | {f"a/{name}/{name}_1.tif": b"a slice"})
    copied = copy(source, raw)
    assert content(raw) == SLICES
    assert skipped(copied) == {f"a/{name}/{name}_1.tif": f"{name} cannot be the name of a patient"}


def test_without_scans_the_error_names_what_was_skipped(tmp_path, raw):
    (tmp_path / "scans" / CS).mkdir(parents=True)
    (tmp_path / "scans" / CS / f"{CS}_1.tif").symlink_to("nowhere")
    message = error_of(tmp_path / "scans", raw)
    assert message.endswith(f"; 1 folder or file skipped: {CS}/{CS}_1.tif (not a regular file)")


def test_at_most_ten_skipped_folders_are_named(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES)
    for number in range(12):
        (source / f"X{number:02}").mkdir()
    text = describe_skipped(copy(source, raw).skipped)
    assert text.startswith("12 folders or files skipped: X00 (no tif), X01 (no tif), ")
    assert text.endswith("X09 (no tif) and 2 more")
