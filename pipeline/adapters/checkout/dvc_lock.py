"""dvc.lock: what DVC recorded of each stage's last run.

Stages compare their inputs with it: a table that was cut off or edited after its stage wrote it
is refused before anything is built on it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.adapters.checkout.project import Stages
from pipeline.errors import GliaflowError

MIN_FREE = 64 * 2**20  # bytes; logs, checkpoints of a small network, Data Docs
CHECKPOINTS_PER_MODEL = 10  # variables with the optimizer's, best and mean, old and new
MODEL_SUFFIX = ".keras"
DAMAGE = (
    yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError,
    RecursionError,
)  # fmt: skip


def read(root: Path) -> dict[str, Any]:
    """Return the entry of each stage; empty if there is no dvc.lock.

    Raises:
        GliaflowError: the file does not have DVC's format.
    """
    path = root / "dvc.lock"
    try:
        stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
        for entry in stages.values():
            if not all(isinstance(out["path"], str) for out in entry.get("outs", ())):
                raise TypeError("the path of an output is no text")
    except FileNotFoundError:
        return {}
    except DAMAGE as error:
        raise GliaflowError(
            f"{path} is not a lock file of DVC ({' '.join(str(error).split())[:120]}); expected "
            "the entries of stages: resolve merge conflicts, or `git checkout dvc.lock`"
        ) from error
    return dict(stages)


def _outputs(locked: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Map each recorded output to the stage that wrote it, and its entry."""
    return {
        out["path"]: (stage, out)
        for stage, entry in locked.items()
        for out in entry.get("outs", ())
    }


def verify_inputs(root: Path, stages: Stages, stage: str, paths: Iterable[Path]) -> None:
    """Check that the inputs of a stage are what the stages before it wrote.

    Files are compared by MD5, folders by the number and total size of their files. An input
    that no stage has recorded, as in a run on other files, is not compared.

    Args:
        paths: arguments of the stage; those that are not among its deps are skipped.

    Raises:
        GliaflowError: an input is missing or was changed.
    """
    recorded = _outputs(read(root))
    for path in paths:
        name = _relative(path, root)
        if name not in stages[stage].get("deps", ()) or name not in recorded:
            continue
        writer, entry = recorded[name]
        fault = _difference(path, entry)
        if fault:
            raise GliaflowError(
                f"{name} is not what the stage {writer} wrote ({fault}); nothing was built on it: "
                f"run `dvc repro {stage}`, which makes it again"
            )


def bytes_needed(root: Path, stage: str) -> int:
    """Estimate the room that a stage takes from what it wrote at its last run, in bytes."""
    outs = read(root).get(stage, {}).get("outs", ())
    models = sum(out.get("size", 0) for out in outs if out["path"].endswith(MODEL_SUFFIX))
    total = sum(out.get("size", 0) for out in outs)
    return int(MIN_FREE + total + CHECKPOINTS_PER_MODEL * models)


def is_incomplete(path: Path, entry: Mapping[str, Any]) -> bool:
    """Return whether an output is missing, or a folder with fewer files than its record."""
    if not path.exists():
        return True
    recorded = entry.get("nfiles")
    if not path.is_dir() or not isinstance(recorded, int):
        return False
    return sum(file.is_file() for file in path.rglob("*")) < recorded


def _relative(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return ""


def _difference(path: Path, entry: Mapping[str, Any]) -> str:
    """Describe how a file or folder differs from its record; empty if it does not.

    A record without what is compared differs: a check that cannot be made is a failure.
    """
    if not path.exists():
        return "it is missing"
    if path.is_dir():
        sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        if (len(sizes), sum(sizes)) == (entry.get("nfiles"), entry.get("size")):
            return ""
        found = f"{len(sizes)} files of {sum(sizes)} bytes"
        return f"{found}; recorded: {entry.get('nfiles')} of {entry.get('size')}"
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "md5").hexdigest()
    if digest == entry.get("md5"):
        return ""
    found = f"{path.stat().st_size} bytes, MD5 {digest}"
    return f"{found}; recorded: {entry.get('size')}, MD5 {entry.get('md5')}"
