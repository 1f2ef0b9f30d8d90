"""One at a time: locks that the system frees when their holder dies, however it dies."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

SAID_AT_ONCE = partial(print, flush=True)


@contextmanager
def alone(
    path: Path, *, what: str = "", say: Callable[[str], None] = SAID_AT_ONCE
) -> Iterator[None]:
    """Hold the lock of a file; wait for it where another process does.

    Args:
        what: said while waiting, with the holder's process id; where empty nothing is said.
        say: gets that line; prints it, where none is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if what:
                stream.seek(0)
                say(f"{what} (process {stream.read().strip() or '?'}); waiting")
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
