"""Times one system in a process of its own: `python -m bench.one NAME STEPS`.

Prints one line of JSON: seconds of each step of each kind of work, after two that warm up,
and the parameters.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import work

WARM_UP = 2


def systems() -> dict[str, Callable[[], work.System]]:
    """Every system by name; what it needs is imported when it is made."""

    def ours(precision: str) -> work.System:
        from bench.ours import gliaflow

        return gliaflow(precision)

    def published() -> work.System:
        from bench.ours import published_way

        return published_way()

    def peer(**options: bool) -> work.System:
        from bench.peer import pytorch

        return pytorch(**options)

    last, off = {"channels_last": True}, {"bfloat16": False, "compiled": False}
    return {
        "gliaflow bfloat16": lambda: ours("bfloat16"),
        "gliaflow float32": lambda: ours("float32"),
        "Keras, the published way": published,
        "PyTorch eager": lambda: peer(channels_last=False, **off),
        "PyTorch channels_last": lambda: peer(**last, **off),
        "PyTorch channels_last bfloat16": lambda: peer(**last, bfloat16=True, compiled=False),
        "PyTorch compiled bfloat16": lambda: peer(**last, bfloat16=True, compiled=True),
    }


def main(name: str, steps: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    system = systems()[name]()
    seconds = {kind: _timed(getattr(system, kind), steps) for kind in ("train", "predict")}
    with tempfile.TemporaryDirectory() as folder:
        seconds["segment"] = _segmented(system, Path(folder), steps)
    print(json.dumps({"seconds": seconds, "parameters": system.parameters}))


def _segmented(system: work.System, folder: Path, rounds: int) -> list[float]:
    """Seconds of each pass over all scans, into a new folder each time."""
    work.write_scans(folder / "scans")
    outs = iter([folder / str(number) for number in range(WARM_UP + rounds)])

    def once() -> None:
        out = next(outs)
        out.mkdir()
        system.segment(folder / "scans", out)

    return _timed(once, rounds)


def _timed(step: Callable[[], object], steps: int) -> list[float]:
    seconds = []
    for _ in range(WARM_UP + steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return seconds[WARM_UP:]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
