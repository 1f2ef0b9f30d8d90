import os
import socket
from pathlib import Path

import pytest
from making import another_user, content
from scan_sources import CLINICAL, CS, SLICES, copy, error_of, make_folder, make_zip

from pipeline.adapters.scans import sources
from pipeline.adapters.scans.limits import Limits


def test_a_folder_is_copied_byte_for_byte(tmp_path, raw):
    source = make_folder(
        tmp_path / "scans", SLICES | {"data.csv": CLINICAL, "README.md": b"no scan"}
    )
    assert copy(source, raw).files == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}


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


def test_a_path_that_is_too_long_for_the_system_is_an_error_in_one_sentence(tmp_path, raw):
    message = error_of(tmp_path / "/".join(["d"] * 3000), raw)
    assert "is too long a path to be read; move its content further up" in message
    assert len(message) < 800
