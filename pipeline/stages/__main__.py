"""Run one stage, as dvc.yaml calls it: `python -m pipeline.stages NAME --key path ...`.

The keys are the path arguments of the stage; `--params` names another file than params.yaml.
Exit codes: 1 after an error that a user can fix, printed as one sentence; 2 for wrong
arguments; 130 after an interrupt. Any other error is a bug and shows its traceback.
"""

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.adapters.storage import system_errors
from pipeline.errors import GliaflowError

USAGE = "usage: python -m pipeline.stages NAME --key path ..."


def main(arguments: Sequence[str]) -> int:
    """Run the stage that the arguments name; return the exit code."""
    stages = _stage_names()
    if not arguments or arguments[0] not in stages:
        unknown = f"there is no stage {arguments[0]}; " if arguments else ""
        return _refuse(f"{unknown}NAME is one of {', '.join(stages)}")
    name, *words = arguments
    keys, values = words[::2], words[1::2]
    if len(keys) != len(values) or not all(key.startswith("--") for key in keys):
        return _refuse(f"{name}: expected --key path pairs, found {' '.join(words)}")
    paths = {
        key.removeprefix("--").replace("-", "_"): Path(value)
        for key, value in zip(keys, values, strict=True)
    }
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        with system_errors.explained(Path.cwd()):
            return _run(_load(name), name, paths)
    except GliaflowError as error:
        print(f"gliaflow: {name}: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130


def _stage_names() -> list[str]:
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def _refuse(message: str) -> int:
    """Report wrong arguments; return the exit code for them."""
    print(f"gliaflow: {message}\n{USAGE}", file=sys.stderr)
    return 2


def _load(name: str) -> ModuleType:
    """Import the module of a stage.

    Raises:
        GliaflowError: a package is not installed.
    """
    from pipeline import telemetry
    from pipeline.adapters.process import native_logs, parent_watch

    telemetry.turn_off()
    parent_watch.end_with_parent()
    try:
        with native_logs.held_back():
            return importlib.import_module(f"pipeline.stages.{name}")
    except ModuleNotFoundError as error:
        raise GliaflowError(
            f"this Python lacks the package {error.name}; run `make env`, then "
            "`source .venv/bin/activate`"
        ) from error


def _run(stage: ModuleType, name: str, paths: dict[str, Path]) -> int:
    """Call `run` of a stage; return the exit code."""
    from pipeline import params
    from pipeline.adapters.checkout import dvc_lock, project

    params_file = paths.pop("params", Path("params.yaml"))
    parameters = params.load(params_file)
    accepted = {
        key: value
        for key, value in inspect.signature(stage.run).parameters.items()
        if key not in ("params", "code")
    }
    required = {key for key, value in accepted.items() if value.default is value.empty}
    wrong = (required - set(paths)) | (set(paths) - set(accepted))
    if wrong:
        keys = _options(set(accepted))
        return _refuse(f"{name}: takes {keys}; wrong or missing: {_options(wrong)}")
    arguments: dict[str, object] = dict(paths)
    root = project.find_root(Path.cwd())
    stages = project.read_stages(root)
    if "code" in inspect.signature(stage.run).parameters:
        arguments["code"] = project.code_digest(root, stages, name)
    dvc_lock.verify_inputs(root, stages, name, paths.values())
    system_errors.check_free(root, dvc_lock.bytes_needed(root, name), what=name)
    stage.run(parameters, **arguments)
    _refuse_edited(params.differences(parameters, params.load(params_file)), stages[name])
    return 0


def _refuse_edited(changes: list[str], stage: Mapping[str, Any]) -> None:
    """Fail a stage if a parameter that it depends on was edited while it ran.

    DVC records the parameters after a stage: it would record values that were never used.

    Args:
        changes: `train.epochs: 8 -> 9`, one per value that changed.
        stage: its entry in dvc.yaml.
    """
    watched = tuple(str(key) for key in stage.get("params", []))
    relevant = [
        change
        for change in changes
        if any(change.startswith((f"{key}.", f"{key}:")) for key in watched)
    ]
    if relevant:
        raise GliaflowError(
            f"params.yaml was edited while the stage ran ({', '.join(relevant)}); its outputs are "
            "of the earlier values and are not recorded: run the same command again"
        )


def _options(keys: set[str]) -> str:
    return ", ".join(f"--{key}" for key in sorted(keys))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
