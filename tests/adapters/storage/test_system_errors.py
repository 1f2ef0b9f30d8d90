"""Errors of the operating system as sentences."""

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.adapters.storage import system_errors
from pipeline.errors import GliaflowError


def raised(error: BaseException, *, cause: BaseException | None = None) -> BaseException:
    """Return an error as an `except` clause would see it."""
    try:
        raise error from cause
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Can't write data (error message = 'No space left on device')"),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
    ],
)
def test_a_full_disk_is_told_with_the_room_that_is_left(error, tmp_path, monkeypatch):
    left = SimpleNamespace(free=2**20)
    monkeypatch.setattr(system_errors.shutil, "disk_usage", lambda path: left)
    sentence = system_errors.explain(raised(error), tmp_path)
    assert sentence is not None
    assert f" is full: {tmp_path} could not be written (1 MiB free); make room there" in sentence


def test_a_disk_with_room_is_not_called_full(tmp_path):
    sentence = system_errors.explain(raised(OSError(errno.ENOSPC, "No space left")), tmp_path)
    assert sentence is not None
    assert sentence.startswith(f"a disk is full, and not that of {tmp_path} (")


def set_inodes(monkeypatch, *, total: int, free: int) -> None:
    room = {"f_frsize": 2**20, "f_blocks": 900, "f_bfree": 500, "f_bavail": 500}
    status = SimpleNamespace(f_files=total, f_favail=free, **room)
    monkeypatch.setattr(system_errors.os, "statvfs", lambda path: status)


def test_a_folder_called_quota_on_a_full_disk_is_no_quota(tmp_path):
    folder = tmp_path / "quota"
    error = raised(OSError(errno.ENOSPC, "No space left on device", str(folder / "a.tif")))
    sentence = system_errors.explain(error, folder)
    assert sentence is not None and sentence.startswith("the disk ")


def test_a_disk_without_inodes_is_not_called_full_while_it_has_room(tmp_path, monkeypatch):
    set_inodes(monkeypatch, total=1000, free=0)
    sentence = system_errors.explain(raised(OSError(errno.ENOSPC, "No space left")), tmp_path)
    assert sentence is not None
    assert (
        f"has no inode free, so it takes no more files: {tmp_path} could not be written (500 MiB free)"
        in sentence
    )
    assert "delete files there" in sentence


def test_work_does_not_begin_on_a_disk_without_inodes(tmp_path, monkeypatch):
    set_inodes(monkeypatch, total=1000, free=0)
    with pytest.raises(
        GliaflowError, match=r"^train creates files in .* has no inode free; nothing"
    ):
        system_errors.check_free(tmp_path, 0, what="train")


def test_a_file_system_without_a_limit_on_inodes_has_inodes(tmp_path, monkeypatch):
    set_inodes(monkeypatch, total=0, free=0)
    system_errors.check_free(tmp_path, 0, what="train")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("unexpected error - [Errno 122] Disk quota exceeded"),
    ],
)
def test_a_used_up_quota_is_told_whatever_the_disk_has_free(error, tmp_path):
    sentence = system_errors.explain(raised(error), tmp_path)
    assert sentence is not None
    assert sentence.startswith("the quota of this account on the disk ")
    assert f" is used up: {tmp_path} could not be written" in sentence


@pytest.mark.parametrize("name", ["n" * 300, "null\0byte"])
def test_a_full_disk_is_told_although_the_path_cannot_exist(name, tmp_path):
    error = raised(OSError(errno.ENOSPC, "No space left on device", str(tmp_path / name)))
    sentence = system_errors.explain(error, tmp_path)
    assert sentence is not None and "could not be written" in sentence


def test_a_full_disk_is_found_behind_the_error_of_a_library(tmp_path):
    cause = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "model.keras"))
    error = raised(ValueError("cannot save the model"), cause=cause)
    sentence = system_errors.explain(error, Path("/"))
    assert sentence is not None and str(tmp_path / "model.keras") in sentence


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "change its permissions"),
        (errno.EROFS, "read-only file system"),
        (errno.ENAMETOOLONG, "use a shorter one"),
        (errno.ELOOP, "leads back to itself"),
    ],
)
def test_a_refused_access_names_the_path_and_what_to_do(number, words, tmp_path):
    sentence = system_errors.explain(raised(OSError(number, "refused", "scans/a.tif")), tmp_path)
    assert sentence is not None
    assert sentence.startswith("scans/a.tif ") and words in sentence


def test_memory_that_ran_out_is_told(tmp_path):
    sentence = system_errors.explain(raised(MemoryError("Unable to allocate 2 TiB")), tmp_path)
    assert sentence is not None and sentence.startswith("memory ran out (Unable to allocate 2 TiB)")


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.ECONNREFUSED, "refused")])
def test_any_other_error_is_left_to_its_traceback(error, tmp_path):
    assert system_errors.explain(raised(error), tmp_path) is None


def test_room_is_checked_on_the_disk_of_a_path_that_does_not_exist_yet(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    system_errors.check_free(tmp_path / "a" / "b", free // 2, what="train")
    with pytest.raises(GliaflowError) as refused:
        system_errors.check_free(tmp_path / "a" / "b", 4 * free, what="train")
    assert str(refused.value).startswith("train needs about ")
    assert "nothing was written: make room there" in str(refused.value)
    assert not (tmp_path / "a").exists()


def test_a_block_raises_the_sentence_and_leaves_other_errors_alone(tmp_path):
    with pytest.raises(GliaflowError, match="is full"), system_errors.explained(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(GliaflowError, match=r"^as it is$"), system_errors.explained(tmp_path):
        raise GliaflowError("as it is")
    with pytest.raises(ZeroDivisionError), system_errors.explained(tmp_path):
        raise ZeroDivisionError
