import hashlib
import os
import socket
from pathlib import Path

import pytest

from pipeline.adapters.scans import regular_files


def make(kind: str, folder: Path) -> Path:
    """Make what is no regular file, or return the path of a device."""
    path = folder / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(folder / "pipe")
        path.symlink_to(folder / "pipe")
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(min(str(path), os.path.relpath(path), key=len))
    return Path("/dev/zero") if kind == "device" else path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", [regular_files.read, regular_files.sha256])
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "socket", "device", "folder"])
def test_what_is_no_regular_file_is_an_error_at_once(tmp_path, kind, read):
    with pytest.raises(OSError, match=r"not a regular file|No such device or address"):
        read(make(kind, tmp_path))


def test_a_file_or_a_link_to_one_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"a slice")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        assert regular_files.read(tmp_path / name) == b"a slice"
        digest = hashlib.sha256(b"a slice").hexdigest()
        assert regular_files.sha256(tmp_path / name) == digest


def test_a_file_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        regular_files.read(tmp_path / "nowhere")
