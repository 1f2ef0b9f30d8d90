"""Run git and DVC as subprocesses in a checkout."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.adapters.process import parent_watch, processes
from pipeline.errors import GliaflowError

DVC = (sys.executable, "-m", "dvc")
IDENTITY = {
    "GIT_AUTHOR_NAME": "gliaflow", "GIT_AUTHOR_EMAIL": "gliaflow@localhost",
    "GIT_COMMITTER_NAME": "gliaflow", "GIT_COMMITTER_EMAIL": "gliaflow@localhost",
}  # fmt: skip


def environment() -> dict[str, str]:
    """Return the environment for DVC and stages.

    `python` in dvc.yaml then means this interpreter, also where its folder is not on the
    PATH. Stages end when this process ends (see `parent_watch`).
    """
    bin_folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        parent_watch.VARIABLE: processes.process_identity(os.getpid()) or "",
    }


def git(
    root: Path, *arguments: str, check: bool = True, env: Mapping[str, str] | None = None
) -> str:
    """Run `git` in `root` and return its standard output, stripped.

    Args:
        check: raise if git fails; otherwise a failure returns what it printed.
        env: variables on top of the environment.

    Raises:
        GliaflowError: git is not installed, or it failed and `check` is set.
    """
    return _output(root, ("git", *arguments), check, {**os.environ, **IDENTITY, **(env or {})})


def git_bytes(root: Path, *arguments: str) -> bytes:
    """Run `git` in `root` and return its standard output as it is.

    Raises:
        GliaflowError: git failed.
    """
    done = subprocess.run(("git", *arguments), cwd=root, capture_output=True)
    if done.returncode:
        output = " ".join(done.stderr.decode(errors="replace").split())[:300]
        raise GliaflowError(f"`git {' '.join(arguments)}` failed in {root}: {output}")
    return done.stdout


def dvc(root: Path, *arguments: str, check: bool = True) -> str:
    """Run `dvc` in `root` and return its standard output, stripped.

    Args:
        check: raise if DVC fails; otherwise a failure returns what it printed.

    Raises:
        GliaflowError: DVC failed and `check` is set.
    """
    return _output(root, (*DVC, *arguments), check, environment())


def _output(root: Path, command: tuple[str, ...], check: bool, env: Mapping[str, str]) -> str:
    shown = " ".join(command).replace(" ".join(DVC), "dvc")
    try:
        done = subprocess.run(
            command, cwd=root, env=env, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError as error:
        raise GliaflowError(f"`{command[0]}` is not installed; install it and try again") from error
    if check and done.returncode:
        output = " ".join((done.stderr or done.stdout).split())[:300]
        raise GliaflowError(f"`{shown}` failed in {root}: {output or 'no output'}")
    return done.stdout.strip()
