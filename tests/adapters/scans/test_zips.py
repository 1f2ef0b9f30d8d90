import stat
import zipfile

import pytest
from making import content
from scan_sources import (
    CLINICAL,
    DU,
    KAGGLE,
    KAGGLE_TWICE,
    SECOND,
    SLICES,
    copy,
    error_of,
    make_zip,
    skipped,
)


@pytest.mark.parametrize("entries", [KAGGLE | SECOND, SECOND | KAGGLE])
def test_files_that_kaggles_zip_holds_twice_are_copied_once_and_the_first_table_is_kept(
    tmp_path, raw, entries
):
    assert copy(make_zip(tmp_path / "lgg.zip", entries), raw).files == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}


def test_a_zip_and_the_folder_that_it_unpacks_to_give_the_same_files(tmp_path):
    source = make_zip(tmp_path / "lgg.zip", KAGGLE_TWICE)
    with zipfile.ZipFile(source) as archive:
        archive.extractall(tmp_path / "unpacked")
    copy(source, tmp_path / "from_zip")
    copy(tmp_path / "unpacked", tmp_path / "from_folder")
    assert content(tmp_path / "from_zip") == content(tmp_path / "from_folder")
    assert len(content(tmp_path / "from_zip")) == 5


@pytest.mark.parametrize(
    "entry", ["../x.tif", "P/../../x.tif", "/tmp/P/x.tif", "..\\x.tif", "C:\\P\\x.tif"]
)
def test_a_zip_with_an_entry_outside_its_folder_is_refused(tmp_path, raw, entry):
    source = make_zip(tmp_path / "bad.zip", SLICES | {entry: b"out of here"})
    message = error_of(source, raw)
    assert str(source) in message
    assert "climbs out" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip"]


def test_a_zip_entry_without_a_name_is_no_scan(tmp_path, raw):
    assert copy(make_zip(tmp_path / "odd.zip", SLICES | {".": b"odd"}), raw).files == 4
    assert content(raw) == SLICES


def test_a_zip_that_expands_beyond_the_limit_is_refused(tmp_path, raw):
    source = make_zip(tmp_path / "bomb.zip", SLICES | {"P/P_1.tif": bytes(2**20)})
    assert source.stat().st_size < 2**14
    message = error_of(source, raw, max_gib=2**-11)  # half a MiB
    assert str(source) in message
    assert "fetch.max_gib" in message


def test_a_zip_with_a_flipped_bit_is_an_error_that_names_the_entry(tmp_path, raw):
    source = make_zip(tmp_path / "bad.zip", {"P/P_1.tif": b"a slice"}, zipfile.ZIP_STORED)
    source.write_bytes(source.read_bytes().replace(b"a slice", b"a slich"))
    message = error_of(source, raw)
    assert str(source) in message
    assert "P/P_1.tif" in message


def test_a_zip_with_corrupt_compressed_bytes_is_an_error_that_names_the_entry(tmp_path, raw):
    source = make_zip(tmp_path / "bad.zip", {"P/P_1.tif": bytes(5000) + b"a slice"})
    body = bytearray(source.read_bytes())
    start = 30 + len("P/P_1.tif")  # a local header has 30 bytes and the name
    body[start : start + 8] = b"\xff" * 8
    source.write_bytes(body)
    assert "P/P_1.tif" in error_of(source, raw)


def test_a_zip_with_a_corrupt_directory_is_refused(tmp_path, raw):
    source = make_zip(tmp_path / "bad.zip", SLICES)
    source.write_bytes(source.read_bytes().replace(b"PK\x01\x02", b"XXXX"))
    assert str(source) in error_of(source, raw)


def test_a_link_in_a_zip_is_no_slice(tmp_path, raw):
    source = make_zip(tmp_path / "scans.zip", SLICES)
    link = zipfile.ZipInfo(f"{DU}/{DU}_2.tif")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    copied = copy(source, raw)
    assert content(raw) == SLICES
    assert skipped(copied) == {f"{DU}/{DU}_2.tif": "not a regular file"}


def test_a_zip_with_endless_paths_is_listed_without_filling_the_memory(tmp_path, raw):
    endless = {f"{number}/{'a/' * 30_000}P_1.tif": b"a slice" for number in range(100)}
    copied = copy(make_zip(tmp_path / "scans.zip", SLICES | endless), raw)
    assert content(raw) == SLICES
    assert set(skipped(copied).values()) == {"nested too deeply"}
    assert len(copied.skipped) == 100


def test_folders_of_a_zip_without_scans_are_named(tmp_path, raw):
    source = make_zip(tmp_path / "scans.zip", SLICES | {"TCGA_X/": b"", "TCGA_Y/a.txt": b"a"})
    assert skipped(copy(source, raw)) == {"TCGA_X": "no tif", "TCGA_Y": "no tif"}


def test_a_zip_with_a_name_that_is_not_valid_utf8_is_an_error_in_one_sentence(tmp_path, raw):
    source = make_zip(
        tmp_path / "scans.zip", SLICES | {"\N{LATIN SMALL LETTER E WITH ACUTE}": b"a"}
    )
    source.write_bytes(source.read_bytes().replace("\xe9".encode(), b"\xff\xff"))
    assert "whose name is not valid UTF-8" in error_of(source, raw)


def test_a_zip_of_a_later_format_is_an_error_in_one_sentence(tmp_path, raw):
    source = make_zip(tmp_path / "scans.zip", SLICES)
    body = bytearray(source.read_bytes())
    body[body.index(b"PK\x01\x02") + 6] = 99  # the version that is needed to unpack it
    source.write_bytes(body)
    assert f"{source} is a broken zip" in error_of(source, raw)


def test_a_slice_at_the_top_of_a_zip_belongs_to_nobody_and_is_named(tmp_path, raw):
    copied = copy(make_zip(tmp_path / "scans.zip", SLICES | {"P_1.tif": b"a slice"}), raw)
    assert skipped(copied) == {"P_1.tif": "not in the folder of a patient"}


def test_a_truncated_zip_is_refused(tmp_path, raw):
    source = make_zip(tmp_path / "half.zip", SLICES)
    source.write_bytes(source.read_bytes()[:200])
    assert str(source) in error_of(source, raw)
