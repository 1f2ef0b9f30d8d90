import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from making import another_user, content

from pipeline.adapters.scans import sources
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


def copy(source: object, into: Path, *, endpoint_url: str | None = None, max_gib: float = 1) -> int:
    return sources.copy_source(str(source), into, endpoint_url=endpoint_url, max_gib=max_gib)


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
    assert copy(source, raw) == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}


def test_a_folder_that_holds_slices_is_a_single_patient(tmp_path, raw):
    make_folder(tmp_path, SLICES)
    assert copy(tmp_path / CS, raw) == 2
    assert content(raw) == {name: body for name, body in SLICES.items() if name.startswith(CS)}


def test_linked_patients_are_copied_and_a_link_back_is_skipped(tmp_path, raw):
    real = make_folder(tmp_path / "store", SLICES)
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for patient in (CS, DU):
        (cohort / patient).symlink_to(real / patient)
    (real / CS / "back").symlink_to(real / CS)
    (cohort / "all").symlink_to(cohort)
    (cohort / "gone").symlink_to(tmp_path / "nowhere")
    assert copy(cohort, raw) == len(SLICES)
    assert content(raw) == SLICES


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
    assert copy(source, raw) == 1
    assert content(raw) == {f"P/P_1{suffix}": b"a slice"}


@pytest.mark.parametrize("entries", [KAGGLE | SECOND, SECOND | KAGGLE])
def test_files_that_kaggles_zip_holds_twice_are_copied_once_and_the_first_table_is_kept(
    tmp_path, raw, entries
):
    assert copy(make_zip(tmp_path / "lgg.zip", entries), raw) == 5
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
    assert copy(make_zip(tmp_path / "odd.zip", SLICES | {".": b"odd"}), raw) == 4
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
    assert copy("s3://whole", raw, endpoint_url=s3_login.url) == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}


@pytest.mark.parametrize("prefix", ["mine/scans", "mine/scans/"])
def test_a_prefix_is_copied_and_nothing_outside_it(s3_login, raw, prefix):
    bucket = f"prefix{len(prefix)}"
    beside = {"mine/scans2/P/P_1.tif": b"other", "other/P/P_1.tif": b"other"}
    s3_login.fill(bucket, {f"mine/scans/{name}": SLICES[name] for name in SLICES} | beside)
    assert copy(f"s3://{bucket}/{prefix}", raw, endpoint_url=s3_login.url) == 4
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
    assert copy("kaggle", raw) == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}
    assert printed == [sources.TERMS + "\n"]


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
