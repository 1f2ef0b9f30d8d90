"""The checkout that a command works in: its root, stages, paths and parameters, read once.

Only dvc.yaml names data and model files; paths are read from there.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from pipeline import params
from pipeline.adapters.checkout.local_paths import LocalPaths
from pipeline.domain import graph, lineage
from pipeline.errors import GliaflowError
from pipeline.params import Params

Stages = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Project:
    """A snapshot of a checkout. An edit of params.yaml during a run does not change it.

    stages: the mapping `stages` of dvc.yaml, paths as written there.
    params: content of params.yaml.
    """

    root: Path
    stages: Stages
    params: Params

    @property
    def local(self) -> LocalPaths:
        return LocalPaths(self.root)

    def order(self) -> list[str]:
        """Names of the stages, each after those whose outputs it reads."""
        return graph.stage_order(self.stages)

    def path(self, key: str) -> Path:
        """Return the file that stages call `--key` in their commands."""
        return self.root / _named_paths(self.stages)[key]

    def code_digest(self, *stages: str) -> str:
        """Return the digest of the modules that the given stages list in their `deps`."""
        return code_digest(self.root, self.stages, *stages)

    def refuse_changed_params(self) -> None:
        """Check that params.yaml still has the values of this snapshot.

        Raises:
            GliaflowError: it was edited since the snapshot was taken.
        """
        now = params.load(self.root / "params.yaml")
        if now != self.params:
            changed = ", ".join(params.differences(self.params, now))
            raise GliaflowError(
                f"params.yaml was edited during the run ({changed}); the outputs may mix both "
                "versions: run the same command again"
            )

    def with_params(self, changed: Params) -> "Project":
        return replace(self, params=changed)


def find_root(start: Path) -> Path:
    """Return the checkout that a folder lies in.

    Raises:
        GliaflowError: neither it nor a parent folder holds dvc.yaml and params.yaml.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            return folder
    raise GliaflowError(
        f"{start} is not inside a gliaflow checkout (no dvc.yaml and params.yaml there or in a "
        "parent folder); change to the folder you cloned"
    )


def find_project(start: Path) -> Project:
    """Read the checkout that a folder lies in.

    Raises:
        GliaflowError: no checkout there, or dvc.yaml or params.yaml is invalid.
    """
    root = find_root(start)
    return Project(root, read_stages(root), params.load(root / "params.yaml"))


def read_stages(root: Path) -> Stages:
    """Read the stages of dvc.yaml.

    Raises:
        GliaflowError: the file lists no stages, or they form a cycle.
    """
    path = root / "dvc.yaml"
    try:
        stages: Stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
        graph.stage_order(stages)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise GliaflowError(
            f"{path} does not list stages; restore it from the repository"
        ) from error
    return stages


def code_digest(root: Path, stages: Stages, *names: str) -> str:
    """Return the digest of the modules that stages list in their `deps`.

    The one answer to which code shapes a result: lineage, checkpoints and the cache of
    `ingest` all use it.

    Raises:
        GliaflowError: a listed module does not exist.
    """
    listed = code_files(stages, *names)
    try:
        return lineage.digest_of_files({path: (root / path).read_bytes() for path in listed})
    except FileNotFoundError as error:
        raise GliaflowError(
            f"dvc.yaml lists {error.filename} as a dependency and it does not exist; restore "
            "dvc.yaml and the code from the same commit"
        ) from error


def code_files(stages: Stages, *names: str) -> set[str]:
    """Return the modules that stages list in their `deps`."""
    return {path for name in names for path in stages[name]["deps"] if path.endswith(".py")}


def _named_paths(stages: Stages) -> dict[str, str]:
    named: dict[str, str] = {}
    for stage in stages.values():
        words = shlex.split(stage["cmd"])
        named |= {
            word.removeprefix("--"): value
            for word, value in pairwise(words)
            if word.startswith("--")
        }
    return named
