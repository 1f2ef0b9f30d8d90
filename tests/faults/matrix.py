"""The registry of faults, and how they are run one by one."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from faults.disks import NotAllowedError
from faults.workplace import Workplace

Part = Literal["disk", "kill", "input", "table", "server", "stack", "clock"]
Outcome = Literal["holds", "fails", "skipped"]


@dataclass(frozen=True)
class Fault:
    """name: what is broken. must_hold: after it. run: breaks it; returns what was seen.

    is_short: takes seconds; `make test` runs it too.
    """

    part: Part
    name: str
    must_hold: str
    run: Callable[[Workplace], str]
    is_short: bool = False


@dataclass(frozen=True)
class Result:
    """seen: what the fault's run returned, or why it failed or was skipped."""

    fault: Fault
    outcome: Outcome
    seen: str
    seconds: float


FAULTS: list[Fault] = []
Run = Callable[[Workplace], str]


def fault(part: Part, name: str, *, must_hold: str, is_short: bool = False) -> Callable[[Run], Run]:
    """Add a function to the matrix."""

    def add(run: Run) -> Run:
        FAULTS.append(Fault(part, name, must_hold, run, is_short))
        return run

    return add


def run_all(faults: list[Fault], place: Workplace) -> Iterator[Result]:
    """Run faults in order, each on the checkout as its first run left it."""
    for item in faults:
        yield run(item, place)


def run(item: Fault, place: Workplace) -> Result:
    """Run one fault. What is not foreseen, such as a time limit, counts as not holding."""
    place.restore()
    start = time.monotonic()
    outcome: Outcome = "holds"
    try:
        seen = item.run(place)
    except NotAllowedError as error:
        outcome, seen = "skipped", str(error)
    except Exception as error:
        outcome, seen = "fails", " ".join(f"{type(error).__name__}: {error}".split())
    finally:
        place.end_processes()
    return Result(item, outcome, seen.replace(str(place.folder), ""), time.monotonic() - start)
