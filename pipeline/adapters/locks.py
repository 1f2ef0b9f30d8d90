"""One at a time: locks that the system frees when their holder dies, however it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(path: Path, *, what: str = "") -> Iterator[None]:
    """Hold the lock of a file; wait for it where another process does.

    Args:
        what: printed while waiting, with the holder's process id; empty prints nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if what:
                stream.seek(0)
                print(f"{what} (process {stream.read().strip() or '?'}); waiting", flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
