import http.server
import os
import socket
import stat
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from making import another_user, content, parameters

from pipeline.adapters.scans import sources
from pipeline.adapters.scans.sources import Limits
from pipeline.errors import GliaflowError

CS, DU = "TCGA_CS_4941_19960909", "TCGA_DU_5849_19950405"
SLICES = {
    f"{CS}/{CS}_1.tif": b"first slice",
    f"{CS}/{CS}_1_mask.tif": b"its mask",
    f"{DU}/{DU}_1.tif": b"another patient's slice",
    f"{DU}/{DU}_1_mask.tif": b"another mask",
}
CLINICAL = b"Patient,RNASeqCluster\nTCGA_CS_4941,2\n"
KAGGLE = {f"kaggle_3m/{name}": body for name, body in (SLICES | {"data.csv": CLINICAL}).items()}
KAGGLE |= {"kaggle_3m/README.md": b"about the data"}
SECOND = {f"lgg-mri-segmentation/{name}": body for name, body in KAGGLE.items()}
SECOND["lgg-mri-segmentation/kaggle_3m/data.csv"] = b"Patient;RNASeqCluster\r\nTCGA_CS_4941;2\r\n"
KAGGLE_TWICE = KAGGLE | SECOND  # as in Kaggle's zip: all of it a second time, in a folder


def copy(
    source: object, into: Path, *, endpoint_url: str | None = None, **limits: float
) -> sources.Copied:
    return sources.copy_source(
        str(source), into, endpoint_url=endpoint_url, limits=Limits(**{"max_gib": 1} | limits)
    )


def error_of(source: object, into: Path, **options: object) -> str:
    """Return the error's message, which is one line; nothing may have been written."""
    with pytest.raises(GliaflowError) as raised:
        copy(source, into, **options)
    assert "\n" not in str(raised.value)
    assert not into.exists() or not content(into)
    return str(raised.value)


def make_folder(root: Path, entries: dict[str, bytes]) -> Path:
    for name, body in entries.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    return root


def make_zip(
    path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return path


@pytest.fixture
def raw(tmp_path) -> Path:
    return tmp_path / "raw"


def test_a_folder_is_copied_byte_for_byte(tmp_path, raw):
    source = make_folder(
        tmp_path / "scans", SLICES | {"data.csv": CLINICAL, "README.md": b"no scan"}
    )
    assert copy(source, raw).files == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}


def test_a_folder_that_holds_slices_is_a_single_patient(tmp_path, raw):
    make_folder(tmp_path, SLICES)
    assert copy(tmp_path / CS, raw).files == 2
    assert content(raw) == {name: body for name, body in SLICES.items() if name.startswith(CS)}


def skipped(copied: sources.Copied) -> dict[str, str]:
    """Return what was skipped: path to reason."""
    return {item.path: item.reason for item in copied.skipped}


def test_linked_patients_are_copied_and_a_link_back_is_skipped(tmp_path, raw):
    real = make_folder(tmp_path / "store", SLICES)
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for patient in (CS, DU):
        (cohort / patient).symlink_to(real / patient)
    (real / CS / "back").symlink_to(real / CS)
    (cohort / "all").symlink_to(cohort)
    (cohort / "gone").symlink_to(tmp_path / "nowhere")
    copied = copy(cohort, raw)
    assert copied.files == len(SLICES)
    assert content(raw) == SLICES
    assert skipped(copied) == {"gone": "neither a file nor a folder"}


@pytest.mark.parametrize(
    ("unreadable", "mode", "source"),
    [
        ("scans", 0o311, "scans"),
        ("scans", 0o644, "scans"),
        (f"scans/{CS}", 0o000, "scans"),
        (f"scans/{CS}", 0o644, "scans"),
        (f"scans/{CS}/{CS}_1.tif", 0o000, "scans"),
        ("scans.zip", 0o000, "scans.zip"),
    ],
)
def test_a_path_that_may_not_be_read_is_an_error_that_names_it(shared, unreadable, mode, source):
    make_folder(shared / "scans", SLICES)
    make_zip(shared / "scans.zip", SLICES)
    (shared / unreadable).chmod(mode)
    with another_user():
        message = error_of(shared / source, shared / "raw")
    assert message.startswith(f"{shared / unreadable} may not be read; change its permissions")


@pytest.mark.parametrize("suffix", [".TIF", ".tiff"])
def test_a_folder_that_holds_slices_is_a_patient_with_every_suffix_of_tif(tmp_path, raw, suffix):
    source = make_folder(tmp_path / "P", {f"P_1{suffix}": b"a slice"})
    assert copy(source, raw).files == 1
    assert content(raw) == {f"P/P_1{suffix}": b"a slice"}


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


def test_a_truncated_zip_is_refused(tmp_path, raw):
    source = make_zip(tmp_path / "half.zip", SLICES)
    source.write_bytes(source.read_bytes()[:200])
    assert str(source) in error_of(source, raw)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_two_copies_of_a_slice_that_differ_are_an_error_that_names_both(tmp_path, raw, kind):
    entries = KAGGLE_TWICE | {f"lgg-mri-segmentation/kaggle_3m/{CS}/{CS}_1.tif": b"another slice"}
    make = make_folder if kind == "folder" else make_zip
    source = make(tmp_path / "lgg", entries)
    message = error_of(source, raw)
    assert f"kaggle_3m/{CS}/{CS}_1.tif and " in message
    assert f"lgg-mri-segmentation/kaggle_3m/{CS}/{CS}_1.tif are" in message


def test_an_empty_folder_is_refused(tmp_path, raw):
    (tmp_path / "empty").mkdir()
    message = error_of(tmp_path / "empty", raw)
    assert message.startswith(f"{tmp_path / 'empty'} holds no scans; expected")


def test_a_folder_with_only_the_clinical_table_is_refused(tmp_path, raw):
    source = make_folder(tmp_path / "scans", {"data.csv": CLINICAL})
    assert "holds no scans" in error_of(source, raw)


def test_a_source_that_does_not_exist_is_refused(tmp_path, raw):
    message = error_of(tmp_path / "nowhere", raw)
    assert f"{tmp_path / 'nowhere'} does not exist" in message
    assert "gliaflow use lgg --source" in message


def test_a_source_of_another_kind_is_refused(tmp_path, raw):
    (tmp_path / "scans.rar").write_bytes(b"Rar!\x1a\x07\x01\x00")
    message = error_of(tmp_path / "scans.rar", raw)
    assert f"{tmp_path / 'scans.rar'} is neither a folder nor a zip" in message


def test_files_that_a_bucket_holds_twice_are_copied_once(s3_login, raw):
    s3_login.fill("whole", KAGGLE_TWICE)
    assert copy("s3://whole", raw, endpoint_url=s3_login.url).files == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}


@pytest.mark.parametrize("prefix", ["mine/scans", "mine/scans/"])
def test_a_prefix_is_copied_and_nothing_outside_it(s3_login, raw, prefix):
    bucket = f"prefix{len(prefix)}"
    beside = {"mine/scans2/P/P_1.tif": b"other", "other/P/P_1.tif": b"other"}
    s3_login.fill(bucket, {f"mine/scans/{name}": SLICES[name] for name in SLICES} | beside)
    assert copy(f"s3://{bucket}/{prefix}", raw, endpoint_url=s3_login.url).files == 4
    assert content(raw) == SLICES


def test_two_copies_of_a_slice_in_a_bucket_that_differ_are_an_error_that_names_both(s3_login, raw):
    s3_login.fill("differs", {"a/P/P_1.tif": b"a slice", "b/P/P_1.tif": b"another slice"})
    message = error_of("s3://differs", raw, endpoint_url=s3_login.url)
    assert "s3://differs/a/P/P_1.tif and s3://differs/b/P/P_1.tif" in message


def test_a_prefix_without_scans_is_refused(s3_login, raw):
    s3_login.fill("empty", {"elsewhere/P/P_1.tif": b"a slice"})
    message = error_of("s3://empty/scans", raw, endpoint_url=s3_login.url)
    assert message.startswith("s3://empty/scans holds no scans; expected")


def test_a_wrong_secret_is_an_error_that_says_what_to_check(s3_login, raw, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    message = error_of("s3://whole/scans", raw, endpoint_url=s3_login.url)
    assert f"s3://whole/scans: the server at {s3_login.url} refused" in message
    assert "SignatureDoesNotMatch" in message
    assert "check" in message
    assert "credentials" in message


def test_without_credentials_the_error_says_which_variables_to_set(s3_login, raw, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    message = error_of("s3://whole/scans", raw, endpoint_url=s3_login.url)
    assert message.startswith("s3://whole/scans: no credentials were found")
    assert "AWS_ACCESS_KEY_ID" in message


def test_a_bucket_that_does_not_exist_is_an_error_that_says_what_to_check(s3_login, raw):
    message = error_of("s3://nobody-made-this/scans", raw, endpoint_url=s3_login.url)
    assert f"s3://nobody-made-this/scans: the server at {s3_login.url} refused" in message
    assert "NoSuchBucket" in message
    assert "check the bucket's name" in message


def test_a_server_that_does_not_answer_is_an_error_with_its_address(
    s3_login, raw, closed_port, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    url = f"http://127.0.0.1:{closed_port}"
    message = error_of("s3://whole/scans", raw, endpoint_url=url)
    assert message.startswith(f"s3://whole/scans: no answer at {url}")
    assert "endpoint_url in params.yaml: `fetch.endpoint_url` for a source" in message


def test_an_address_without_a_scheme_is_an_error_that_names_the_setting(s3_login, raw):
    message = error_of("s3://whole/scans", raw, endpoint_url="localhost:8333")
    assert "localhost:8333" in message
    assert "endpoint_url in params.yaml: `fetch.endpoint_url` for a source" in message


def test_a_key_that_leads_out_of_its_prefix_writes_nothing_outside(s3_login, raw, climbing_s3):
    with pytest.raises(GliaflowError):
        copy("s3://any/scans", raw, endpoint_url=climbing_s3)
    assert not list(raw.parent.rglob("*.tif"))


def test_if_kaggle_cannot_be_reached_the_error_comes_after_the_terms(raw, monkeypatch, capsys):
    def refuse(name: str) -> str:
        raise ConnectionError("no route\nto www.kaggle.com")

    monkeypatch.setattr("kagglehub.dataset_download", refuse)
    message = error_of("kaggle", raw)
    assert "mateuszbuda/lgg-mri-segmentation could not be downloaded from Kaggle" in message
    assert "no route to www.kaggle.com" in message
    assert "KAGGLE_USERNAME" in message
    assert "--source" in message
    assert "non-commercial use" in capsys.readouterr().out


def test_nothing_is_downloaded_from_kaggle_before_the_terms_are_printed(
    tmp_path, raw, monkeypatch, capsys
):
    printed = []

    def download(name: str) -> str:
        printed.append(capsys.readouterr().out)
        return str(make_folder(tmp_path / "downloaded", KAGGLE_TWICE))

    monkeypatch.setattr("kagglehub.dataset_download", download)
    assert copy("kaggle", raw).files == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}
    assert printed == [sources.TERMS + "\n"]


# Limits


LARGE = {f"{CS}/{CS}_1.tif": bytes(2**20 + 1)}


def fill_source(
    kind: str, tmp_path: Path, s3_login, entries: dict[str, bytes]
) -> dict[str, object]:
    """Make a source of some kind; return the arguments that name it."""
    if kind == "bucket":
        name = f"limits-{tmp_path.name.strip('_').replace('_', '-').lower()}"[:60].strip("-")
        s3_login.fill(name, entries)
        return {"source": f"s3://{name}", "endpoint_url": s3_login.url}
    make = make_folder if kind == "folder" else make_zip
    return {"source": make(tmp_path / "given", entries)}


@pytest.mark.parametrize("kind", ["folder", "zip", "bucket"])
@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({"max_file_mib": 1}, f"{CS}/{CS}_1.tif has 1.0 MiB; allowed: 1 (fetch.max_file_mib in "),
        ({"max_patient_files": 1}, f"the patient {CS} has 2 files; allowed: 1 (fetch.max_patient_"),
        ({"max_batch_patients": 1}, " holds 2 patients; allowed: 1 (fetch.max_batch_patients in "),
    ],
)
def test_a_source_over_a_limit_is_refused_with_number_and_key(
    tmp_path, raw, s3_login, kind, limits, found
):
    arguments = fill_source(kind, tmp_path, s3_login, SLICES | LARGE)
    message = error_of(into=raw, **arguments, **limits)
    assert found in message
    assert "nothing was copied" in message


def test_a_source_at_its_limits_is_copied(tmp_path, raw):
    entries = SLICES | {f"{CS}/{CS}_1.tif": bytes(2**20)}
    source = make_folder(tmp_path / "scans", entries)
    limits = {"max_file_mib": 1, "max_patient_files": 2, "max_batch_patients": 2}
    assert copy(source, raw, **limits).files == 4


def test_copies_of_a_file_count_once_against_the_limit_of_files(tmp_path, raw):
    source = make_zip(tmp_path / "lgg.zip", KAGGLE_TWICE)
    assert copy(source, raw, max_patient_files=2).files == 5


def test_a_file_that_is_too_large_is_not_read(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES)
    huge = source / "copy" / CS / f"{CS}_1.tif"
    huge.parent.mkdir(parents=True)
    with huge.open("wb") as stream:
        stream.truncate(2**40)  # takes no space
    assert f"{huge} has 1048576.0 MiB" in error_of(source, raw, max_file_mib=64)


def test_limits_are_those_of_the_parameters():
    limits = Limits.from_params(parameters().fetch)
    assert limits == Limits(
        max_gib=16, max_file_mib=64, max_patient_files=4000, max_batch_patients=10000
    )


# What is no regular file


def make_special(kind: str, path: Path) -> Path:
    """Make a pipe or a socket, or return the path of a device."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            short = Path(os.path.relpath(path))  # a socket's path has at most 108 bytes
            server.bind(str(min(path, short, key=lambda name: len(str(name)))))
    return Path("/dev/zero") if kind == "device" else path


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_a_source_that_is_no_regular_file_is_refused_at_once(tmp_path, raw, kind):
    source = make_special(kind, tmp_path / "x")
    assert f"the source {source} is a {kind}; expected a folder, a zip" in error_of(source, raw)


@pytest.mark.parametrize(
    "source", ["~nobody-has-this-name/scans", "x" * 300, "a/" * 3000, "loop", "file/scans", "a\0b"]
)
def test_a_path_that_leads_nowhere_is_an_error_in_one_sentence(tmp_path, raw, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("no folder")
    message = error_of(source, raw)
    assert "does not exist" in message or "cannot be read" in message or "too long" in message
    assert len(message) < 800


def test_a_tif_that_is_no_regular_file_is_named_and_not_opened(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES)
    os.mkfifo(source / DU / f"{DU}_2.tif")
    (source / DU / f"{DU}_3.tif").symlink_to("/dev/zero")
    (source / DU / f"{DU}_4.tif").symlink_to(tmp_path / "nowhere")
    (source / DU / f"{DU}_5.tif").symlink_to(f"{DU}_5.tif")
    copied = copy(source, raw)
    assert content(raw) == SLICES
    assert skipped(copied) == {
        f"{DU}/{DU}_{number}.tif": "not a regular file" for number in (2, 3, 4, 5)
    }


def test_a_link_in_a_zip_is_no_slice(tmp_path, raw):
    source = make_zip(tmp_path / "scans.zip", SLICES)
    link = zipfile.ZipInfo(f"{DU}/{DU}_2.tif")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    copied = copy(source, raw)
    assert content(raw) == SLICES
    assert skipped(copied) == {f"{DU}/{DU}_2.tif": "not a regular file"}


def test_a_hard_link_to_a_linked_slice_is_one_to_its_file(tmp_path, raw):
    make_folder(tmp_path / "store", SLICES)
    patient = tmp_path / "scans" / CS
    patient.mkdir(parents=True)
    (patient / f"{CS}_1.tif").symlink_to(Path("../../store") / CS / f"{CS}_1.tif")
    limits = Limits(max_gib=1)
    sources.copy_source(
        str(tmp_path / "scans"), raw, endpoint_url=None, limits=limits, link=True
    )  # fmt: skip
    assert not (raw / CS / f"{CS}_1.tif").is_symlink()
    assert content(raw) == {f"{CS}/{CS}_1.tif": b"first slice"}


# Links and depth


def test_folders_that_link_to_each_other_are_read_once(tmp_path):
    for name in "abcdefghi":
        make_folder(tmp_path / name, {f"{name}_1.tif": b"a slice"})
    for name in "abcdefghi":
        for other in "abcdefghi":
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    listed = [item.path for item in sources.walk(tmp_path) if item.is_file]
    assert listed == [tmp_path / name / f"{name}_1.tif" for name in "abcdefghi"]


def test_a_real_folder_wins_over_links_that_come_before_it(tmp_path, raw):
    source = make_folder(tmp_path / "scans", {f"z/{CS}/{CS}_1.tif": b"a slice"})
    (source / "a").symlink_to(source / "z" / CS)
    copy(source, raw)
    assert content(raw) == {f"{CS}/{CS}_1.tif": b"a slice"}


def test_of_two_links_to_a_patient_the_one_with_its_name_counts(tmp_path, raw):
    store = make_folder(tmp_path / "store", SLICES)
    (tmp_path / "scans").mkdir()
    for name in ("A", CS):
        (tmp_path / "scans" / name).symlink_to(store / CS)
    copy(tmp_path / "scans", raw)
    assert sorted(path.name for path in raw.iterdir()) == [CS]


def test_a_link_to_a_folder_above_the_source_is_not_followed(tmp_path, raw):
    source = make_folder(tmp_path / "all" / "scans", SLICES)
    make_folder(tmp_path / "all" / "others", {"P/P_1.tif": b"of somebody else"})
    (source / "up").symlink_to(tmp_path / "all")
    copy(source, raw)
    assert content(raw) == SLICES


def make_deep(root: Path, *, folders: int) -> Path:
    """Make so many folders in each other, named d, with a patient in the last; return the root."""
    here = os.open(root, os.O_RDONLY)
    for name in [*("d" for _ in range(folders)), "P"]:
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("P_1.tif", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)
    return root


def remove_deep(root: Path) -> None:
    """Remove what `make_deep` made: pytest cannot, since its paths are too long."""
    subprocess.run(["rm", "-rf", str(root)], check=True)


@pytest.mark.parametrize("folders", [31, 1500, 2500])  # 2500: longer than a path can be
def test_folders_that_are_nested_too_deeply_are_skipped_and_named(tmp_path, raw, folders):
    source = make_folder(tmp_path / "scans", SLICES)
    try:
        copied = copy(make_deep(source, folders=folders), raw)
    finally:
        remove_deep(source)
    assert content(raw) == SLICES
    assert list(skipped(copied).values()) == ["nested too deeply"]


def test_a_slice_below_thirty_one_folders_is_copied(tmp_path, raw):
    (tmp_path / "scans").mkdir()
    copied = copy(make_deep(tmp_path / "scans", folders=30), raw)
    assert (copied.files, skipped(copied)) == (1, {})


def test_a_zip_with_endless_paths_is_listed_without_filling_the_memory(tmp_path, raw):
    endless = {f"{number}/{'a/' * 30_000}P_1.tif": b"a slice" for number in range(100)}
    copied = copy(make_zip(tmp_path / "scans.zip", SLICES | endless), raw)
    assert content(raw) == SLICES
    assert set(skipped(copied).values()) == {"nested too deeply"}
    assert len(copied.skipped) == 100


def test_a_path_that_is_too_long_for_the_system_is_an_error_in_one_sentence(tmp_path, raw):
    message = error_of(tmp_path / "/".join(["d"] * 3000), raw)
    assert "is too long a path to be read; move its content further up" in message
    assert len(message) < 800


# What is skipped


def test_folders_without_scans_are_named(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES | {"TCGA_X/notes.txt": b"scans follow"})
    (source / "TCGA_Y" / "inner").mkdir(parents=True)
    assert skipped(copy(source, raw)) == {"TCGA_X": "no tif", "TCGA_Y": "no tif"}


def test_a_linked_folder_without_scans_is_named(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES)
    (tmp_path / "empty").mkdir()
    (source / "TCGA_X").symlink_to(tmp_path / "empty")
    assert skipped(copy(source, raw)) == {"TCGA_X": "no tif"}


def test_folders_of_a_zip_without_scans_are_named(tmp_path, raw):
    source = make_zip(tmp_path / "scans.zip", SLICES | {"TCGA_X/": b"", "TCGA_Y/a.txt": b"a"})
    assert skipped(copy(source, raw)) == {"TCGA_X": "no tif", "TCGA_Y": "no tif"}


def test_folders_of_a_bucket_without_scans_are_named(s3_login, raw):
    s3_login.fill("nameless", SLICES | {"TCGA_X/": b"", "TCGA_Y/a.txt": b"a"})
    copied = copy("s3://nameless", raw, endpoint_url=s3_login.url)
    assert skipped(copied) == {"TCGA_X": "no tif", "TCGA_Y": "no tif"}


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
    assert sources.describe_skipped(copied.skipped).isprintable()


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
    assert sources.describe_skipped(copied.skipped).isascii()


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


@pytest.mark.parametrize("name", ["data.csv", "batch.json", "COMPLETE"])
def test_a_patient_with_the_name_of_a_file_that_would_replace_it_is_skipped(tmp_path, raw, name):
    source = make_folder(tmp_path / "scans", SLICES | {f"a/{name}/{name}_1.tif": b"a slice"})
    copied = copy(source, raw)
    assert content(raw) == SLICES
    assert skipped(copied) == {f"a/{name}/{name}_1.tif": f"{name} cannot be the name of a patient"}


def test_a_slice_at_the_top_of_a_zip_belongs_to_nobody_and_is_named(tmp_path, raw):
    copied = copy(make_zip(tmp_path / "scans.zip", SLICES | {"P_1.tif": b"a slice"}), raw)
    assert skipped(copied) == {"P_1.tif": "not in the folder of a patient"}


def test_without_scans_the_error_names_what_was_skipped(tmp_path, raw):
    (tmp_path / "scans" / CS).mkdir(parents=True)
    (tmp_path / "scans" / CS / f"{CS}_1.tif").symlink_to("nowhere")
    message = error_of(tmp_path / "scans", raw)
    assert message.endswith(f"; 1 folder or file skipped: {CS}/{CS}_1.tif (not a regular file)")


def test_at_most_ten_skipped_folders_are_named(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES)
    for number in range(12):
        (source / f"X{number:02}").mkdir()
    text = sources.describe_skipped(copy(source, raw).skipped)
    assert text.startswith("12 folders or files skipped: X00 (no tif), X01 (no tif), ")
    assert text.endswith("X09 (no tif) and 2 more")


@pytest.fixture
def climbing_s3() -> Iterator[str]:
    """An S3 server that lists a key with dots, which Amazon's accepts and SeaweedFS does not."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = LISTING if "list-type=2" in self.path else b"climbed"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


LISTING = b"""<?xml version="1.0"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>any</Name>
<Prefix>scans/</Prefix><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>
<Contents><Key>scans/../P_1.tif</Key><ETag>"1"</ETag><Size>7</Size></Contents>
</ListBucketResult>"""
