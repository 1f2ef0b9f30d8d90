"""Run stages of dvc.yaml, through DVC or directly, and pass their output on line by line."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.adapters.checkout import commands, dvc_lock, project
from pipeline.adapters.process import processes
from pipeline.adapters.storage import system_errors
from pipeline.errors import GliaflowError

ERROR_PREFIX = "gliaflow: "
SHELL_SIGNAL_OFFSET = 128  # a shell reports a child that signal N ended as 128 + N
GRACE_SECONDS = 10
# Hints that DVC prints after every stage, for people who run it by hand.
DVC_HINTS = (
    "To track the changes with git",
    "\tgit add ",
    "To enable auto staging",
    "\tdvc config core.autostage",
    "Use `dvc push`",
    "Updating lock file",
)


def changed_stages(root: Path) -> set[str]:
    """Return the stages that DVC would run, without those downstream of them.

    Raises:
        GliaflowError: `dvc status` failed or printed something else than JSON. An answer that
            could not be obtained never counts as «up to date».
    """
    output = commands.dvc(root, "status", "--json")
    try:
        return set(json.loads(output))
    except (ValueError, TypeError) as error:
        raise GliaflowError(
            f"`dvc status --json` in {root} printed no JSON: {output[:200]!r}; run "
            "`gliaflow doctor`"
        ) from error


def repro_stage(root: Path, stage: str, *, say: Callable[[str], None]) -> None:
    """Bring one stage up to date; the stages upstream must be up to date already.

    Args:
        root: of the checkout.
        say: receives every line that DVC and the stage print.

    Raises:
        GliaflowError: the disk has too little room, or the stage failed; with the stage's own
            error message if it gave one. DVC removes outputs before it runs a stage: those of
            the last run are linked back from its cache.
    """
    system_errors.check_free(root, dvc_lock.bytes_needed(root, stage), what=stage)
    with _uncached_kept(root, stage):
        try:
            _run([*commands.DVC, "repro", "--single-item", stage], root, stage, say)
        except GliaflowError:
            _restore_outputs(root, stage, say)
            raise


@contextmanager
def _uncached_kept(root: Path, stage: str) -> Iterator[None]:
    """Keep the outputs that DVC does not cache; put them back if the block fails.

    They are kept under a second name, as hard links: that takes no room on a full disk.
    """
    entry = project.read_stages(root)[stage]
    paths = [
        root / path
        for out in (*entry.get("outs", ()), *entry.get("metrics", ()))
        if isinstance(out, Mapping)
        for path, options in out.items()
        if options.get("cache") is False and (root / path).is_file()
    ]
    kept = {path: path.with_name(f".{path.name}.before") for path in paths}
    for path, second in kept.items():
        second.unlink(missing_ok=True)
        second.hardlink_to(path)
    try:
        yield
    except BaseException:
        for path, second in kept.items():
            second.replace(path)
        raise
    finally:
        for second in kept.values():
            second.unlink(missing_ok=True)


def _restore_outputs(root: Path, stage: str, say: Callable[[str], None]) -> None:
    """Link back the outputs that a stage wrote at its last run, where they are missing or cut off."""
    outs = dvc_lock.read(root).get(stage, {}).get("outs", ())
    missing = [out["path"] for out in outs if dvc_lock.is_incomplete(root / out["path"], out)]
    if not missing:
        return
    try:
        commands.dvc(root, "checkout", "--force", *missing)
    except GliaflowError as error:
        say(f"{stage}: the outputs of the last run could not be restored: {error}")
    else:
        say(f"{stage}: restored {', '.join(missing)} of the last run")


def run_stage(
    root: Path, stage: str, paths: Mapping[str, Path], *, say: Callable[[str], None]
) -> None:
    """Run one stage on other files than dvc.yaml names, without DVC.

    Args:
        root: of the checkout.
        paths: the stage's path arguments, and `params`.
        say: as in `repro_stage`.

    Raises:
        GliaflowError: the stage failed.
    """
    arguments = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
    _run([sys.executable, "-m", "pipeline.stages", stage, *arguments], root, stage, say)


def _run(command: Sequence[str], root: Path, stage: str, say: Callable[[str], None]) -> None:
    message, last, is_full = "", "", False
    with _process_group(command, root) as process:
        assert process.stdout is not None
        for line in process.stdout:
            line = line.rstrip()
            is_full |= system_errors.says_full(line)
            if line.startswith(ERROR_PREFIX):
                message = line.removeprefix(ERROR_PREFIX)
            elif line:
                last = line
            if line and not line.startswith(DVC_HINTS):
                say(line)
    if process.returncode:
        if is_full and not message:
            message = f"{stage}: {system_errors.full_disk(root)}"
        raise GliaflowError(message or _failure(stage, process.returncode, last))


def _failure(stage: str, code: int, last: str) -> str:
    """Describe the failure of a stage that printed no error message of its own.

    Args:
        code: exit code of the process; negative if a signal ended it.
        last: last line of its output.
    """
    below_dvc = re.search(r"exited with (-?\d+)$", last)
    code = int(below_dvc[1]) if below_dvc else code
    if code in (-signal.SIGKILL, SHELL_SIGNAL_OFFSET + signal.SIGKILL):
        return (
            f"{stage}: killed from outside, as the system does when memory runs out; run the same "
            "command again: finished work is kept, and training resumes after its last epoch. "
            "If it is killed again, end other programs, or set a smaller train.batch in params.yaml"
        )
    return f"{stage}: {last or 'it ended without any output'}"


@contextmanager
def _process_group(command: Sequence[str], root: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process in its own group, and end the whole group if the block raises."""
    process = subprocess.Popen(
        command,
        cwd=root,
        env=commands.environment(),
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
        processes.end_group(process.pid, grace_seconds=GRACE_SECONDS)
        process.wait()
        raise
    finally:
        if process.stdout:
            process.stdout.close()
