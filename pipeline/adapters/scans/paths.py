"""Paths of a source: how they are printed, what they lead to, and whether they may be read."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pipeline.domain import scans
from pipeline.errors import GliaflowError

SHOWN_CHARACTERS = 500  # of a path
REPLACED = "is no longer a regular file, as it was when it was listed; remove it, or try again"
ADVICE = {
    errno.EACCES: "may not be read; change its permissions, or remove it",
    errno.EPERM: "may not be read; change its permissions, or remove it",
    errno.ENAMETOOLONG: "is too long a path to be read; move its content further up",
    errno.EINVAL: REPLACED,
    errno.ENXIO: REPLACED,  # a socket
}
KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def printable(path: object) -> str:
    """Return a path as it can be printed: on one line, in valid UTF-8, not too long."""
    text = str(path)
    shown = ascii(text) if scans.print_fault(text) else text
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."


def kind_of(status: os.stat_result) -> str:
    """Name what a path leads to: `a pipe`, `a socket`, `a device`, `a folder` or `a file`."""
    return next((name for test, name in KINDS if test(status.st_mode)), "a file")


@contextmanager
def access_errors(path: Path) -> Iterator[None]:
    """Turn errors of opening `path` that a person can fix into errors for users."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0)
        if advice is None:
            raise
        raise GliaflowError(f"{printable(path)} {advice}") from error


def check_stays_inside(path: PurePosixPath, what: str) -> None:
    """Make sure that a path in a source does not lead out of it.

    Args:
        what: names the path in the message.

    Raises:
        GliaflowError: it does.
    """
    if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
        raise GliaflowError(
            f"{what} climbs out of the folder that it would be copied to; nothing was copied: "
            "check where these scans come from"
        )
