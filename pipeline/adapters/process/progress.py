"""Show progress of long work: a bar on a terminal, plain lines in a log.

Work per patient is spread over processes here as well.
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
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def track(items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
    """Yield the items and show how many of `total` are done."""
    if sys.stderr.isatty():
        yield from _bar(items, total, label)
    else:
        yield from _lines(items, total, label)


def map_parallel(
    function: Callable[[T], R], items: Sequence[T], *, workers: int, label: str
) -> Iterator[R]:
    """Call `function` on each item in several processes; yield results in the order of items.

    Args:
        function: can be pickled and starts no threads.
        workers: processes; 0: one per core.
        label: of the progress.
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
    printed = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - printed >= SECONDS_BETWEEN_LINES and done < total:
            print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)
            printed = now
