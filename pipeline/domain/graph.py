"""The stages of dvc.yaml in an order in which they can run: the graph is written there alone."""

from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import PurePosixPath
from typing import Any


def stage_order(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Order stages so that each comes after those whose outs it reads.

    Args:
        stages: the mapping `stages` of dvc.yaml: name to {deps, outs, metrics, plots ...}.

    Raises:
        graphlib.CycleError: stages wait for each other.
    """
    return list(TopologicalSorter(_waits(stages)).static_order())


def with_followers(changed: set[str], stages: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The stages that changed, and all that read, directly or not, what those make."""
    waits, found = _waits(stages), set(changed)
    for name in stage_order(stages):
        if waits[name] & found:
            found.add(name)
    return found


def _waits(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """For each stage those whose outs it reads."""
    makers = {path: name for name, stage in stages.items() for path in outs(stage)}
    return {
        name: {
            maker
            for dep in _paths(stage.get("deps", []))
            for path, maker in makers.items()
            if _touch(dep, path)
        }
        for name, stage in stages.items()
    }


def outs(stage: Mapping[str, Any]) -> list[str]:
    """Every path that a stage makes: its outs, metrics and plots."""
    return [path for kind in ("outs", "metrics", "plots") for path in _paths(stage.get(kind, []))]


def _touch(one: str, other: str) -> bool:
    """Whether two paths are the same, or one lies in the other."""
    a, b = PurePosixPath(one), PurePosixPath(other)
    return a == b or a in b.parents or b in a.parents


def _paths(entries: list[Any]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
