"""Describe errors of the operating system that a person can fix: a full disk, a refused access.

Libraries wrap them in exceptions of their own, so the whole chain of causes is searched.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import GliaflowError

FULL = (errno.ENOSPC, errno.EDQUOT)
QUOTA_TEXT = "disk quota exceeded"
FULL_TEXTS = ("no space left on device", QUOTA_TEXT, "database or disk is full")
PLENTY = 64 * 2**20  # bytes; a disk with more room than this is not the one that is full
ADVICE = {
    errno.EACCES: "may not be accessed; change its permissions",
    errno.EPERM: "may not be changed; change its permissions",
    errno.EROFS: "is on a read-only file system; mount it for writing, or use another folder",
    errno.ENOENT: "does not exist; restore it, or run the command that makes it",
    errno.ENOTDIR: "is not inside a folder; expected a folder where a file is",
    errno.EISDIR: "is a folder; expected a file",
    errno.ENAMETOOLONG: "has a name that is too long for this file system; use a shorter one",
    errno.ELOOP: "is a link that leads back to itself; remove it",
    errno.EIO: "could not be read or written (input/output error); check the disk",
    errno.EFBIG: "would be larger than this system allows; raise the limit on file sizes",
}


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn errors that a person can fix into a `GliaflowError`; leave others as they are.

    Args:
        folder: where the block works, for errors that name no path.
    """
    try:
        yield
    except GliaflowError:
        raise
    except Exception as error:
        sentence = explain(error, folder)
        if sentence is None:
            raise
        raise GliaflowError(sentence) from error


def explain(error: BaseException, folder: Path) -> str | None:
    """Return a sentence for an error that a person can fix; None for any other, a bug.

    Args:
        folder: where the command worked, for errors that name no path.
    """
    for cause in _causes(error):
        if says_full(str(cause)) or (isinstance(cause, OSError) and cause.errno in FULL):
            return _explain_full(cause, folder)
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return (
                f"memory ran out ({' '.join(str(cause).split()) or 'no details'}); end other "
                "programs, or work on less at once: a smaller train.batch, fewer patients"
            )
    path = _named_path(error)
    if path is not None and isinstance(error, OSError) and error.errno in ADVICE:
        return f"{path} {ADVICE[error.errno]}"
    return None


def _explain_full(error: BaseException, folder: Path) -> str:
    """Say what is used up: the room or the inodes of a disk, or the quota of the account."""
    path = _named_path(error)
    existing = _existing(path or folder)
    text = " ".join(str(error).split())[:200]
    if (isinstance(error, OSError) and error.errno == errno.EDQUOT) or QUOTA_TEXT in text.lower():
        return (
            f"the quota of this account on the disk {_mount_point(existing)} is used up: "
            f"{path or folder} could not be written; see `quota -s`, delete files there and run "
            "the same command again, what was finished before is kept"
        )
    has_room = shutil.disk_usage(existing).free > PLENTY and not _lacks_inodes(existing)
    if path is None and has_room:
        return (
            f"a disk is full, and not that of {folder} ({text}); see `df`, make room and run the "
            "same command again"
        )
    return full_disk(path or folder)


def says_full(text: str) -> bool:
    """Whether a program's output says that a disk is full."""
    return any(words in text.lower() for words in FULL_TEXTS)


def full_disk(path: Path) -> str:
    """Return the sentence for a disk that is full; `path` is what was being written."""
    existing = _existing(path)
    free = shutil.disk_usage(existing).free
    if _lacks_inodes(existing):
        return (
            f"the disk {_mount_point(existing)} has no inode free, so it takes no more files: "
            f"{path} could not be written ({_size(free)} free); see `df -i`, delete files there "
            "and run the same command again, what was finished before is kept"
        )
    return (
        f"the disk {_mount_point(existing)} is full: {path} could not be written ({_size(free)} "
        "free); make room there and run the same command again, what was finished before is kept"
    )


def check_free(path: Path, needed: int, *, what: str) -> None:
    """Make sure that a disk has room before work begins.

    Args:
        path: on the disk to write to; it need not exist.
        needed: bytes.
        what: the work, for the message: `train`.

    Raises:
        GliaflowError: there is less room, or no inode for a new file.
    """
    existing = _existing(path)
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise GliaflowError(
            f"{what} needs about {_size(needed)} in {path} and the disk {_mount_point(existing)} "
            f"has {_size(free)} free; nothing was written: make room there and run the same "
            "command again"
        )
    if _lacks_inodes(existing):
        raise GliaflowError(
            f"{what} creates files in {path} and the disk {_mount_point(existing)} has no inode "
            "free; nothing was written: delete files there (`df -i`) and run the same command again"
        )


def _lacks_inodes(path: Path) -> bool:
    """Whether the disk of an existing path takes no more files; some file systems have no limit."""
    status = os.statvfs(path)
    return status.f_files > 0 and status.f_favail == 0


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, outermost first."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _named_path(error: BaseException) -> Path | None:
    name = error.filename if isinstance(error, OSError) else None
    return Path(os.fsdecode(name)) if isinstance(name, (str, bytes)) else None


def _existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    path = path.absolute()
    while not _exists(path) and path != path.parent:
        path = path.parent
    return path


def _exists(path: Path) -> bool:
    """Whether a path can be seen to exist; False in a closed folder or with an impossible name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _mount_point(path: Path) -> Path:
    path = path.resolve()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def _size(count: int) -> str:
    mib = count / 2**20
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"
