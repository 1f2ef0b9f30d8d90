import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from making import another_user, content

from pipeline.adapters import sources
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
TWICE = KAGGLE | SECOND


def copy(source: object, into: Path, *, endpoint_url: str | None = None, max_gib: float = 1) -> int:
    return sources.copy(str(source), into, endpoint_url=endpoint_url, max_gib=max_gib)


def refusal(source: object, into: Path, **settings: object) -> str:
    """What the refusal says: one sentence, and nothing was written."""
    with pytest.raises(GliaflowError) as refused:
        copy(source, into, **settings)
    assert "\n" not in str(refused.value)
    assert not into.exists() or not content(into)
    return str(refused.value)


def a_folder(root: Path, entries: dict[str, bytes]) -> Path:
    for name, body in entries.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    return root


def a_zip(path: Path, entries: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return path


@pytest.fixture
def raw(tmp_path) -> Path:
    return tmp_path / "raw"


def test_a_folder_is_copied_byte_for_byte(tmp_path, raw):
    source = a_folder(tmp_path / "scans", SLICES | {"data.csv": CLINICAL, "README.md": b"no scan"})
    assert copy(source, raw) == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}


def test_a_folder_of_slices_is_taken_as_one_patient(tmp_path, raw):
    a_folder(tmp_path, SLICES)
    assert copy(tmp_path / CS, raw) == 2
    assert content(raw) == {name: body for name, body in SLICES.items() if name.startswith(CS)}


def test_patients_that_are_links_are_copied_and_a_link_back_is_left_out(tmp_path, raw):
    real = a_folder(tmp_path / "store", SLICES)
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
    ("what", "mode", "source"),
    [
        ("scans", 0o311, "scans"),
        ("scans", 0o644, "scans"),
        (f"scans/{CS}", 0o000, "scans"),
        (f"scans/{CS}", 0o644, "scans"),
        (f"scans/{CS}/{CS}_1.tif", 0o000, "scans"),
        ("scans.zip", 0o000, "scans.zip"),
    ],
)
def test_what_may_not_be_read_is_named(shared, what, mode, source):
    a_folder(shared / "scans", SLICES)
    a_zip(shared / "scans.zip", SLICES)
    (shared / what).chmod(mode)
    with another_user():
        said = refusal(shared / source, shared / "raw")
    assert said.startswith(f"{shared / what} may not be read; give yourself the right to")


@pytest.mark.parametrize("suffix", [".TIF", ".tiff"])
def test_a_folder_of_slices_is_one_patient_however_its_files_end(tmp_path, raw, suffix):
    source = a_folder(tmp_path / "P", {f"P_1{suffix}": b"a slice"})
    assert copy(source, raw) == 1
    assert content(raw) == {f"P/P_1{suffix}": b"a slice"}


@pytest.mark.parametrize("entries", [KAGGLE | SECOND, SECOND | KAGGLE])
def test_kaggles_zip_is_never_doubled_and_keeps_the_first_clinical_table(tmp_path, raw, entries):
    assert copy(a_zip(tmp_path / "lgg.zip", entries), raw) == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}


def test_a_zip_and_the_folder_it_unpacks_to_give_the_same_files(tmp_path):
    source = a_zip(tmp_path / "lgg.zip", TWICE)
    with zipfile.ZipFile(source) as archive:
        archive.extractall(tmp_path / "unpacked")
    copy(source, tmp_path / "from_zip")
    copy(tmp_path / "unpacked", tmp_path / "from_folder")
    assert content(tmp_path / "from_zip") == content(tmp_path / "from_folder")
    assert len(content(tmp_path / "from_zip")) == 5


@pytest.mark.parametrize(
    "entry", ["../x.tif", "P/../../x.tif", "/tmp/P/x.tif", "..\\x.tif", "C:\\P\\x.tif"]
)
def test_a_zip_whose_entry_climbs_out_is_refused(tmp_path, raw, entry):
    source = a_zip(tmp_path / "bad.zip", SLICES | {entry: b"out of here"})
    sentence = refusal(source, raw)
    assert str(source) in sentence
    assert "climbs out" in sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip"]


def test_a_zip_entry_without_a_name_is_no_scan(tmp_path, raw):
    assert copy(a_zip(tmp_path / "odd.zip", SLICES | {".": b"odd"}), raw) == 4
    assert content(raw) == SLICES


def test_a_zip_that_expands_beyond_the_limit_is_refused(tmp_path, raw):
    source = a_zip(tmp_path / "bomb.zip", SLICES | {"P/P_1.tif": bytes(2**20)})
    assert source.stat().st_size < 2**14
    sentence = refusal(source, raw, max_gib=2**-11)  # half a MiB
    assert str(source) in sentence
    assert "fetch.max_gib" in sentence


def test_a_zip_with_a_flipped_bit_is_refused_with_its_entry(tmp_path, raw):
    source = a_zip(tmp_path / "bad.zip", {"P/P_1.tif": b"a slice"}, zipfile.ZIP_STORED)
    source.write_bytes(source.read_bytes().replace(b"a slice", b"a slich"))
    sentence = refusal(source, raw)
    assert str(source) in sentence
    assert "P/P_1.tif" in sentence


def test_a_zip_whose_packed_bytes_are_broken_is_refused_with_its_entry(tmp_path, raw):
    source = a_zip(tmp_path / "bad.zip", {"P/P_1.tif": bytes(5000) + b"a slice"})
    body = bytearray(source.read_bytes())
    start = 30 + len("P/P_1.tif")  # a local header has 30 bytes and the name
    body[start : start + 8] = b"\xff" * 8
    source.write_bytes(body)
    assert "P/P_1.tif" in refusal(source, raw)


def test_a_zip_whose_list_of_entries_is_broken_is_refused(tmp_path, raw):
    source = a_zip(tmp_path / "bad.zip", SLICES)
    source.write_bytes(source.read_bytes().replace(b"PK\x01\x02", b"XXXX"))
    assert str(source) in refusal(source, raw)


def test_half_a_zip_is_refused(tmp_path, raw):
    source = a_zip(tmp_path / "half.zip", SLICES)
    source.write_bytes(source.read_bytes()[:200])
    assert str(source) in refusal(source, raw)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_slice_twice_with_different_content_is_refused_with_both_places(tmp_path, raw, kind):
    entries = TWICE | {f"lgg-mri-segmentation/kaggle_3m/{CS}/{CS}_1.tif": b"another slice"}
    where = tmp_path / "lgg"
    source = a_folder(where, entries) if kind == "folder" else a_zip(where, entries)
    sentence = refusal(source, raw)
    assert f"kaggle_3m/{CS}/{CS}_1.tif and " in sentence
    assert f"lgg-mri-segmentation/kaggle_3m/{CS}/{CS}_1.tif are" in sentence


def test_an_empty_folder_is_refused(tmp_path, raw):
    (tmp_path / "empty").mkdir()
    sentence = refusal(tmp_path / "empty", raw)
    assert sentence.startswith(f"{tmp_path / 'empty'} holds no scans; expected")


def test_a_folder_with_the_clinical_table_alone_is_refused(tmp_path, raw):
    source = a_folder(tmp_path / "scans", {"data.csv": CLINICAL})
    assert "holds no scans" in refusal(source, raw)


def test_a_source_that_is_not_there_is_refused(tmp_path, raw):
    sentence = refusal(tmp_path / "nowhere", raw)
    assert f"{tmp_path / 'nowhere'} is not there" in sentence
    assert "gliaflow use lgg --source" in sentence


def test_a_source_of_another_kind_is_refused(tmp_path, raw):
    (tmp_path / "scans.rar").write_bytes(b"Rar!\x1a\x07\x01\x00")
    sentence = refusal(tmp_path / "scans.rar", raw)
    assert f"{tmp_path / 'scans.rar'} is neither a folder nor a zip" in sentence


def test_a_bucket_is_copied_whole_and_never_doubled(s3_login, raw):
    s3_login.fill("whole", TWICE)
    assert copy("s3://whole", raw, endpoint_url=s3_login.url) == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}


@pytest.mark.parametrize("prefix", ["mine/scans", "mine/scans/"])
def test_a_prefix_is_copied_and_nothing_beside_it(s3_login, raw, prefix):
    bucket = f"prefix{len(prefix)}"
    beside = {"mine/scans2/P/P_1.tif": b"other", "other/P/P_1.tif": b"other"}
    s3_login.fill(bucket, {f"mine/scans/{name}": SLICES[name] for name in SLICES} | beside)
    assert copy(f"s3://{bucket}/{prefix}", raw, endpoint_url=s3_login.url) == 4
    assert content(raw) == SLICES


def test_a_slice_twice_in_a_bucket_with_different_content_is_refused(s3_login, raw):
    s3_login.fill("differs", {"a/P/P_1.tif": b"a slice", "b/P/P_1.tif": b"another slice"})
    sentence = refusal("s3://differs", raw, endpoint_url=s3_login.url)
    assert "s3://differs/a/P/P_1.tif and s3://differs/b/P/P_1.tif" in sentence


def test_a_prefix_without_scans_is_refused(s3_login, raw):
    s3_login.fill("empty", {"elsewhere/P/P_1.tif": b"a slice"})
    sentence = refusal("s3://empty/scans", raw, endpoint_url=s3_login.url)
    assert sentence.startswith("s3://empty/scans holds no scans; expected")


def test_a_wrong_secret_is_refused_with_what_to_check(s3_login, raw, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    sentence = refusal("s3://whole/scans", raw, endpoint_url=s3_login.url)
    assert f"s3://whole/scans: the server at {s3_login.url} refused" in sentence
    assert "SignatureDoesNotMatch" in sentence
    assert "check" in sentence
    assert "credentials" in sentence


def test_without_credentials_the_refusal_says_which_to_set(s3_login, raw, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    sentence = refusal("s3://whole/scans", raw, endpoint_url=s3_login.url)
    assert sentence.startswith("s3://whole/scans: no credentials were found")
    assert "AWS_ACCESS_KEY_ID" in sentence


def test_a_bucket_that_is_not_there_is_refused_with_what_to_check(s3_login, raw):
    sentence = refusal("s3://nobody-made-this/scans", raw, endpoint_url=s3_login.url)
    assert f"s3://nobody-made-this/scans: the server at {s3_login.url} refused" in sentence
    assert "NoSuchBucket" in sentence
    assert "check the bucket's name" in sentence


def test_a_dead_server_is_told_with_its_address(s3_login, raw, closed_port, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    url = f"http://127.0.0.1:{closed_port}"
    sentence = refusal("s3://whole/scans", raw, endpoint_url=url)
    assert sentence.startswith(f"s3://whole/scans: no answer at {url}")
    assert "endpoint_url in params.yaml (fetch's for a source" in sentence


def test_an_address_without_a_scheme_is_told(s3_login, raw):
    sentence = refusal("s3://whole/scans", raw, endpoint_url="localhost:8333")
    assert "localhost:8333" in sentence
    assert "endpoint_url in params.yaml (fetch's for a source" in sentence


def test_a_key_that_climbs_out_of_its_prefix_writes_nothing_outside(s3_login, raw, climbing_s3):
    with pytest.raises(GliaflowError):
        copy("s3://any/scans", raw, endpoint_url=climbing_s3)
    assert not list(raw.parent.rglob("*.tif"))


def test_kaggle_out_of_reach_is_told_after_the_terms(raw, monkeypatch, capsys):
    def refuse(name: str) -> str:
        raise ConnectionError("no route\nto www.kaggle.com")

    monkeypatch.setattr("kagglehub.dataset_download", refuse)
    sentence = refusal("kaggle", raw)
    assert "mateuszbuda/lgg-mri-segmentation did not come from Kaggle" in sentence
    assert "no route to www.kaggle.com" in sentence
    assert "KAGGLE_USERNAME" in sentence
    assert "--source" in sentence
    assert "non-commercial use" in capsys.readouterr().out


def test_kaggle_is_asked_only_after_the_terms_were_printed(tmp_path, raw, monkeypatch, capsys):
    said = []

    def download(name: str) -> str:
        said.append(capsys.readouterr().out)
        return str(a_folder(tmp_path / "downloaded", TWICE))

    monkeypatch.setattr("kagglehub.dataset_download", download)
    assert copy("kaggle", raw) == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}
    assert said == [sources.TERMS + "\n"]


@pytest.fixture
def climbing_s3() -> Iterator[str]:
    """An S3 server that lists a key with dots, as Amazon's takes them and SeaweedFS does not."""

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
