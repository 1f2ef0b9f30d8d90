import pytest
from making import content

from pipeline.adapters.storage import files
from pipeline.errors import GliaflowError

# FIPS 180-2, appendix B.1.
SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def fail_halfway(path, *, is_folder=False):
    with files.atomic_write(path) as temporary:
        if is_folder:
            temporary.mkdir()
        (temporary / "part" if is_folder else temporary).write_text("half")
        raise RuntimeError


def test_sha256_is_that_of_the_files_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert files.sha256(tmp_path / "file") == SHA256_OF_ABC


def test_sha256_of_a_missing_file_is_an_error_that_says_what_builds_it(tmp_path):
    with pytest.raises(GliaflowError, match=r"nowhere does not exist; run `dvc repro`"):
        files.sha256(tmp_path / "nowhere")


def test_a_written_file_replaces_the_old_one(tmp_path):
    (tmp_path / "file").write_text("old")
    with files.atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "file").read_text() == "old"
    assert content(tmp_path) == {"file": b"new"}


def test_the_temporary_path_is_in_the_same_folder(tmp_path):
    with files.atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("x")
        assert temporary.parent == tmp_path


def test_a_writer_that_raises_leaves_only_the_old_file(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError):
        fail_halfway(tmp_path / "file")
    assert content(tmp_path) == {"file": b"old"}


def test_a_writer_that_raises_before_writing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), files.atomic_write(tmp_path / "new" / "file"):
        raise RuntimeError
    assert content(tmp_path) == {}


def test_a_half_written_folder_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        fail_halfway(tmp_path / "folder", is_folder=True)
    assert list(tmp_path.iterdir()) == []


def test_a_written_folder_replaces_the_old_one(tmp_path):
    for name in ("old", "new"):
        with files.atomic_write(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert content(tmp_path) == {"folder/new": b"new"}


def test_text_is_written_in_utf8(tmp_path):
    files.write_text(tmp_path / "new" / "file", "Größe «x»\n")
    assert (tmp_path / "new" / "file").read_bytes() == "Größe «x»\n".encode()
