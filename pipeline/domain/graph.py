"""Order the stages of dvc.yaml and follow their dependencies.

The graph comes from the stages' deps and outs; it is written nowhere else.
"""

from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import PurePosixPath
from typing import Any


def stage_order(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of stages so that each comes after those whose outs it reads.

    Args:
        stages: the mapping `stages` of dvc.yaml: name to {deps, outs, metrics, plots ...}.

    Raises:
        graphlib.CycleError: the stages depend on each other in a circle.
    """
    return list(TopologicalSorter(_upstream(stages)).static_order())


def with_downstream(changed: set[str], stages: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the changed stages and all that read their outs, directly or indirectly."""
    upstream, affected = _upstream(stages), set(changed)
    for name in stage_order(stages):
        if upstream[name] & affected:
            affected.add(name)
    return affected


def _upstream(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return for each stage the stages whose outs it reads."""
    producers = {path: name for name, stage in stages.items() for path in outs(stage)}
    return {
        name: {
            producer
            for dep in _paths(stage.get("deps", []))
            for path, producer in producers.items()
            if _overlap(dep, path)
        }
        for name, stage in stages.items()
    }


def outs(stage: Mapping[str, Any]) -> list[str]:
    """Return every path that a stage writes: its outs, metrics and plots."""
    return [path for kind in ("outs", "metrics", "plots") for path in _paths(stage.get(kind, []))]


def _overlap(first: str, second: str) -> bool:
    """Return whether two paths are equal or one lies inside the other."""
    a, b = PurePosixPath(first), PurePosixPath(second)
    return a == b or a in b.parents or b in a.parents


def _paths(entries: list[Any]) -> list[str]:
    """Return the paths of entries, each `path` or `{path: options}`."""
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
