"""Runs one stage of dvc.yaml, through DVC or by itself, passing its lines on as they come.

Does not know Prefect.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.adapters import lifetime
from pipeline.errors import GliaflowError

MARK = "gliaflow: "
AS_A_SHELL_SAYS = 128  # plus the signal that ended what it ran, where it waited for it
# Advice that DVC gives after every stage, for people who run it by hand.
ADVICE = (
    "To track the changes with git",
    "\tgit add ",
    "To enable auto staging",
    "\tdvc config core.autostage",
    "Use `dvc push`",
    "Updating lock file",
)


def changed(root: Path) -> set[str]:
    """The stages of dvc.yaml that DVC would run, without those that follow from them.

    Raises:
        GliaflowError: DVC cannot tell.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"],
        cwd=root,
        env=_environment(),
        capture_output=True,
        text=True,
    )
    try:
        return set(json.loads(done.stdout or "null") or {})
    except ValueError:
        said = " ".join((done.stderr or done.stdout).split())[:300]
        raise GliaflowError(
            f"`dvc status` in {root} failed: {said}; run `gliaflow doctor`"
        ) from None


def repro(root: Path, stage: str, *, say: Callable[[str], None]) -> None:
    """Bring one stage up to date; those it depends on must be so already.

    Args:
        root: of the checkout.
        say: gets every line that DVC and the stage print.

    Raises:
        GliaflowError: the stage failed; with the stage's own sentence, where it gave one.
    """
    _run([sys.executable, "-m", "dvc", "repro", "--single-item", stage], root, stage, say)


def alone(root: Path, stage: str, paths: Mapping[str, Path], *, say: Callable[[str], None]) -> None:
    """Run one stage on other files than those that dvc.yaml names; DVC learns nothing of it.

    Args:
        root: of the checkout.
        paths: the stage's path arguments, and `params`.
        say: as in `repro`.

    Raises:
        GliaflowError: the stage failed.
    """
    named = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
    _run([sys.executable, "-m", "pipeline.stages", stage, *named], root, stage, say)


def _run(command: list[str], root: Path, stage: str, say: Callable[[str], None]) -> None:
    sentence, last = "", ""
    with _group(command, root) as process:
        assert process.stdout is not None
        for line in process.stdout:
            line = line.rstrip()
            if line.startswith(MARK):
                sentence = line.removeprefix(MARK)
            elif line:
                last = line
            if line and not line.startswith(ADVICE):
                say(line)
    if process.returncode:
        raise GliaflowError(sentence or _ended(stage, process.returncode, last))


def _ended(stage: str, code: int, last: str) -> str:
    """What to say of a stage that left no sentence of its own.

    Args:
        code: of the process, negative where a signal ended it.
        last: line that it said.
    """
    below_dvc = re.search(r"exited with (-?\d+)$", last)
    code = int(below_dvc[1]) if below_dvc else code
    if code in (-signal.SIGKILL, AS_A_SHELL_SAYS + signal.SIGKILL):
        return (
            f"{stage}: killed from outside, as the system does where memory runs out; call the same "
            "command again: what is finished is kept, and a training goes on after its last epoch. "
            "If it is killed again, end other programs, or set a smaller train.batch in params.yaml"
        )
    return f"{stage}: {last or 'it ended without a word'}"


@contextmanager
def _group(command: list[str], root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, which is ended whole if we are interrupted."""
    process = subprocess.Popen(
        command,
        cwd=root,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
        process.wait()
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=10)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _environment() -> dict[str, str]:
    """Stages must run under this Python, also where its folder is not on the PATH."""
    bin_folder = str(Path(sys.executable).parent)
    path = f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}"
    own = lifetime.identity(os.getpid()) or ""
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", lifetime.VARIABLE: own}
