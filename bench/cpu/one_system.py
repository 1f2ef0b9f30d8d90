"""Time one system in its own process: `python -m bench.cpu.one_system NAME STEPS`.

Prints one line of JSON: the number of parameters, and for each kind of work the seconds of
each step after two warm-up steps.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import workload

WARM_UP = 2


def systems() -> dict[str, Callable[[], workload.System]]:
    """Return every system by name; a system imports what it needs when it is made."""

    def ours(precision: str) -> workload.System:
        from bench.cpu.ours import gliaflow

        return gliaflow(precision)

    def published() -> workload.System:
        from bench.cpu.ours import published_way

        return published_way()

    def peer(**options: bool) -> workload.System:
        from bench.peers import pytorch

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
    """Time a system and print the result as JSON."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    system = systems()[name]()
    seconds = {kind: _time_steps(getattr(system, kind), steps) for kind in ("train", "predict")}
    with tempfile.TemporaryDirectory() as folder:
        seconds["segment"] = _time_segmentation(system, Path(folder), steps)
    print(json.dumps({"seconds": seconds, "parameters": system.parameters}))


def _time_segmentation(system: workload.System, folder: Path, passes: int) -> list[float]:
    """Return the seconds of each pass over all scans; each pass writes to a new folder."""
    workload.write_scans(folder / "scans")
    outputs = iter([folder / str(number) for number in range(WARM_UP + passes)])

    def segment_all() -> None:
        out = next(outputs)
        out.mkdir()
        system.segment(folder / "scans", out)

    return _time_steps(segment_all, passes)


def _time_steps(step: Callable[[], object], steps: int) -> list[float]:
    """Return the seconds of each step after WARM_UP steps."""
    seconds = []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
