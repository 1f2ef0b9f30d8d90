"""Open the files of scans: regular files alone.

A file may be replaced between its listing and its reading. Opening a pipe would wait for a writer
for ever, and reading a device may never end.
"""

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: as `open`; or EINVAL if it is a pipe, a socket, a device or a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read(path: Path) -> bytes:
    """Return the content of a file; raises as `open_regular`."""
    with open_regular(path) as stream:
        return stream.read()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hex; raises as `open_regular`."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
