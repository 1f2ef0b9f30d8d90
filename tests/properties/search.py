"""How many inputs each property is tried on, and the bounds for a single one.

`make test` tries the same few hundred inputs each time. `PROPERTIES=long pytest tests/properties`
tries other ones in every run, for some minutes.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import configuration
from hypothesis import strategies as st
from making import REPOSITORY

EXAMPLES = {
    "decisions": 150,
    "http": 300,
    "listing": 80,
    "models": 40,
    "params": 150,
    "scans": 250,
    "tables": 120,
    "tiff": 400,
    "zips": 120,
}
IS_LONG = os.environ.get("PROPERTIES") == "long"
LONG_FACTOR = 40  # a long search tries so many times the inputs

configuration.set_hypothesis_home_dir(REPOSITORY / ".local" / "hypothesis")


class Input(bytes):
    """An input of a property; a failing one is a file, so its bytes need not be printed."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes, see kept.py>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def search(name: str, contents: st.SearchStrategy[bytes]) -> Callable[[Any], Any]:
    """Return a decorator that tries a test on many values of its argument `content`."""
    given = hypothesis.given(content=contents.map(Input))
    timeout = pytest.mark.timeout(3600 if IS_LONG else 120)
    return lambda test: timeout(_settings(name)(given(test)))


def _settings(name: str) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=EXAMPLES[name] * (LONG_FACTOR if IS_LONG else 1),
        derandomize=not IS_LONG,
        database=None,
        deadline=None,  # see `bounded`, whose clock stands still while other processes run
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=False,
    )


@contextmanager
def bounded(*, cpu_seconds: float, mib: float) -> Iterator[None]:
    """Fail if the block needs more time of the processor, or more memory at its peak.

    The memory is only measured on Linux.
    """

    def end(signum: int, frame: object) -> None:
        raise AssertionError(f"took more than {cpu_seconds} s of the processor")

    before = _resident_mib(reset=True)
    previous = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    grown = _resident_mib() - before
    assert grown <= mib, f"needed {grown:.0f} MiB of memory; expected at most {mib}"


def _resident_mib(*, reset: bool = False) -> float:
    """Return the peak of this process's memory; 0 where it is unknown.

    Args:
        reset: let the peak start again from what is in use now.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024
