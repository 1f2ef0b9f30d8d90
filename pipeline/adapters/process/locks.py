"""File locks that the system releases when their holder ends, however it ends."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

print_now = partial(print, flush=True)


@contextmanager
def hold(path: Path, *, what: str = "", say: Callable[[str], None] = print_now) -> Iterator[None]:
    """Hold the lock of a file; wait while another process holds it.

    Args:
        what: message while waiting; the holder's process id is appended. Empty: no message.
        say: receives the message.
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
