"""Progress on work that takes a while: a bar for a person, plain lines for a log.

Also the one place where work per patient is spread over processes.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

SECONDS_BETWEEN_LINES = 10.0


def cores() -> int:
    return len(os.sched_getaffinity(0))


def track(items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
    """Pass items on and show how many of `total` are done."""
    if sys.stderr.isatty():
        yield from _bar(items, total, label)
    else:
        yield from _lines(items, total, label)


def spread(
    function: Callable[[T], R], items: Sequence[T], *, workers: int, label: str
) -> Iterator[R]:
    """Call `function` on every item in several processes; results come in the items' order.

    Args:
        function: can be pickled, and starts no threads of its own.
        workers: processes; 0 is one a core.
    """
    workers = min(workers or cores(), len(items)) or 1
    if workers == 1:
        yield from track(map(function, items), total=len(items), label=label)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from track(pool.map(function, items), total=len(items), label=label)


def _bar(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, label, total=total, console=Console(stderr=True))


def _lines(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES and done < total:
            print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)
            said = now
