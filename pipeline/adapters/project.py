"""The repository that a command works in: where it is, its stages, and the paths they name.

dvc.yaml alone names data and model files; this reads them from there.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from pipeline import params
from pipeline.domain import graph
from pipeline.errors import GliaflowError


@dataclass(frozen=True)
class Project:
    """A checkout. stages: the mapping of that name in dvc.yaml, paths as written there."""

    root: Path
    stages: Mapping[str, Mapping[str, Any]]

    def order(self) -> list[str]:
        return graph.stage_order(self.stages)

    def path(self, key: str) -> Path:
        """The file that stages call `--key` in their commands."""
        return self.root / self._named()[key]

    def params(self) -> params.Params:
        return params.load(self.root / "params.yaml")

    def code_of(self, *stages: str) -> dict[str, bytes]:
        """The modules that the given stages depend on, name to content."""
        names = {
            path for stage in stages for path in self.stages[stage]["deps"] if path.endswith(".py")
        }
        return {name: (self.root / name).read_bytes() for name in sorted(names)}

    def _named(self) -> dict[str, str]:
        named: dict[str, str] = {}
        for stage in self.stages.values():
            words = shlex.split(stage["cmd"])
            named |= {
                word.removeprefix("--"): value
                for word, value in pairwise(words)
                if word.startswith("--")
            }
        return named


def find(start: Path) -> Project:
    """The project that a folder lies in.

    Raises:
        GliaflowError: neither it nor a folder above holds dvc.yaml and params.yaml.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            try:
                stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
                graph.stage_order(stages)
            except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
                raise GliaflowError(
                    f"{folder / 'dvc.yaml'} does not list stages; take it from the repository again"
                ) from error
            return Project(folder, stages)
    raise GliaflowError(
        f"{start} is in no gliaflow repository (no dvc.yaml and params.yaml there or above); "
        "change to the folder you cloned"
    )
