import http.server
import threading
from collections.abc import Iterator

import pytest
from making import content
from scan_sources import (
    CLINICAL,
    KAGGLE_TWICE,
    SLICES,
    copy,
    error_of,
    skipped,
)

from pipeline.errors import GliaflowError

LISTING = b"""<?xml version="1.0"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>any</Name>
<Prefix>scans/</Prefix><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>
<Contents><Key>scans/../P_1.tif</Key><ETag>"1"</ETag><Size>7</Size></Contents>
</ListBucketResult>"""


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


def test_folders_of_a_bucket_without_scans_are_named(s3_login, raw):
    s3_login.fill("nameless", SLICES | {"TCGA_X/": b"", "TCGA_Y/a.txt": b"a"})
    copied = copy("s3://nameless", raw, endpoint_url=s3_login.url)
    assert skipped(copied) == {"TCGA_X": "no tif", "TCGA_Y": "no tif"}


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
