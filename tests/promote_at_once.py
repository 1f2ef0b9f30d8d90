"""Make decisions on versions 1 and 2 of a model, several at once, in one of several processes.

`python promote_at_once.py URI COUNT [STEP]`: with STEP the process ends, as if killed, at that
step of its first decision: claim, intent, move or done.
"""

import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from pipeline import params
from pipeline.adapters.tracking.decision_log import DecisionLog
from pipeline.adapters.tracking.registry import Registry
from pipeline.adapters.tracking.turns import Turns
from pipeline.domain.decisions import Candidate, ChampionChange, DecisionRecord, Score
from pipeline.domain.gate import Policy

MODEL = "at-once"
STEPS = {
    "claim": (DecisionLog, "write_intent"),
    "intent": (Registry, "_move_alias"),
    "move": (Registry, "_complete"),
    "done": (Turns, "_remove"),
}


def open_registry(uri: str) -> Registry:
    section = params.Register(tracking_uri=uri, experiment="at-once", model=MODEL)
    root = Path(tempfile.mkdtemp())
    return Registry(section, root, lock=root / "registry.lock")


def decide(registry: Registry, version: int) -> DecisionRecord:
    """Promote a version against the gate."""

    def decision() -> DecisionRecord:
        champion = registry.champion()
        return DecisionRecord(
            verdict="promote",
            reasons=(),
            candidate=Candidate(version, f"digest {version}", Score(0.8, 0.7, 0.9, 5)),
            champion=ChampionChange(champion.version if champion else None, version),
            policy=Policy(0.5, 0.0, 5, 0.03, 0.1, 5, 20, "inconclusive"),
            when="2026-01-01T00:00:00+00:00",
            who="test",
            action="override",
            why="test",
        )

    return registry.carry_out(decision, say=lambda _: None)


def die_at(step: str) -> None:
    """Replace the call that comes after a step by the end of the process."""
    kind, name = STEPS[step]

    def die(*args: Any) -> None:
        os._exit(9)

    setattr(kind, name, die)


def main() -> None:
    uri, count, *step = sys.argv[1:]
    registry = open_registry(uri)
    for name in step:
        die_at(name)
    failures: list[BaseException] = []

    def run(call: int) -> None:
        try:
            decide(registry, 2 - call % 2)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in range(int(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        print(failure, file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
