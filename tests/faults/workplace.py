"""A checkout to break: it holds a finished run and can be put back as it was."""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import checkouts
import yaml

from pipeline.adapters.process import processes

RUN_MARK = "GLIAFLOW_FAULTS"  # variable that marks every process of a workplace


class Workplace:
    """A checkout of the tiny phantom with one registered, promoted version.

    Args:
        folder: new; holds the checkout and a copy of it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.root = checkouts.make(folder / "checkout")
        self._copy = folder / "copy"
        done = self.call("gliaflow", "run")
        assert done.returncode == 0, done.stdout + done.stderr
        self.expected = self.state()
        shutil.copytree(self.root, self._copy, symlinks=True)

    def restore(self) -> None:
        """Put the checkout back as it was after its run, and end what is left running in it."""
        self.end_processes()
        shutil.rmtree(self.root)
        shutil.copytree(self._copy, self.root, symlinks=True)

    def forget_results(self) -> None:
        """Leave the checkout as one in which nothing was ever run."""
        for name in (
            "data/raw",
            "data/scans",
            "models",
            "reports",
            ".local",
            "mlruns",
            ".dvc/cache",
        ):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for name in ("dvc.lock", "mlflow.db", "data/manifest.csv", "data/quarantine.csv"):
            (self.root / name).unlink(missing_ok=True)
        (self.root / "data/splits.csv").unlink(missing_ok=True)

    def call(
        self, *command: str, timeout: float = 300, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a module of this Python in the checkout, as a person would type the command."""
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=self.root, env=self._environment() | variables,
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def start(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a module in the background, as the leader of a process group."""
        with log.open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", *command], cwd=self.root, env=self._environment(),
                stdout=stream, stderr=stream, start_new_session=True,
            )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return checkouts.environment(self.root) | {RUN_MARK: str(self.root)}

    def end_processes(self) -> None:
        processes.end_all(processes.with_variable(RUN_MARK, str(self.root)), grace_seconds=5)

    def change(self, **sections: Any) -> None:
        checkouts.change(self.root, **sections)

    def registry(self) -> dict[str, Any]:
        done = self.call("gliaflow", "registry", "--json")
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def state(self) -> dict[str, Any]:
        """Return what two runs of the same data and parameters must agree in."""
        report = self.registry()
        digest = {
            name: hashlib.sha256((self.root / name).read_bytes()).hexdigest()
            for name in ("models/resunet.keras", "reports/metrics.json", "data/splits.csv")
        }
        return {
            **digest,
            "dvc.lock": yaml.safe_load((self.root / "dvc.lock").read_text()),
            "champion": report["champion"],
            "versions": [version["version"] for version in report["versions"]],
            "verdicts": [decision["verdict"] for decision in report["decisions"]],
        }


def check_refused(done: subprocess.CompletedProcess[str], *words: str) -> str:
    """Check that a command ended with one clear sentence; return the sentence."""
    output = done.stdout + done.stderr
    assert done.returncode in (1, 2), f"exit code {done.returncode}: {output[-500:]}"
    assert "Traceback" not in output, output[-1500:]
    sentence = next(
        (line for line in reversed(output.splitlines()) if line.startswith("gliaflow: ")), ""
    )
    assert sentence, f"no sentence: {output[-500:]}"
    missing = [word for word in words if word not in sentence]
    assert not missing, f"{missing} not in: {sentence}"
    return sentence.removeprefix("gliaflow: ")


def kill_at_moments(
    place: Workplace, command: list[str], *, moments: int, seconds: float, seed: int
) -> str:
    """Kill a command -9, with all that it started, at random moments of its run.

    Args:
        seconds: the longest wait before a kill.
    """
    chance = random.Random(seed)
    ended = 0
    for _ in range(moments):
        log = place.folder / "killed.log"
        process = place.start(*command, log=log)
        try:
            process.wait(timeout=chance.uniform(0.2, seconds))
            ended += 1
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert "Traceback" not in log.read_text(errors="replace"), log.read_text(errors="replace")
    return f"{moments - ended} kills, {ended} times it had ended before"


def until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


@contextmanager
def small_disk(mib: int) -> Iterator[Path]:
    """Mount a tmpfs of this size.

    Raises:
        PermissionError: this account may not mount.
    """
    folder = Path(tempfile.mkdtemp(prefix="gliaflow-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        folder.rmdir()
        raise PermissionError("this account may not mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def fill(folder: Path, *, leave: int = 0) -> Path:
    """Fill the disk of a folder; return the file that does so."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while shutil.disk_usage(folder).free > leave:
                stream.write(b"\0" * min(2**16, shutil.disk_usage(folder).free - leave))
        except OSError as error:  # somebody else wrote meanwhile
            if error.errno != errno.ENOSPC:
                raise
    return filler
