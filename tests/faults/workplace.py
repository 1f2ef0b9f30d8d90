"""A checkout to break: it holds a finished run and can be put back as it was."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import checkouts
import yaml

from faults import disks
from pipeline.adapters.process import processes

RUN_MARK = "GLIAFLOW_FAULTS"  # variable that marks every process of a workplace
RUN = ("gliaflow", "run")
SENTENCE = "one sentence and exit code 1 or 2; nothing is changed"
SAME = "the next run ends as if nothing had happened: same model, scores, dvc.lock, one version"


class Workplace:
    """A checkout of the tiny phantom with one registered, promoted version.

    Args:
        folder: new; holds the checkout and a copy of it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.root = checkouts.make(folder / "checkout")
        self._copy = folder / "copy"
        done = self.call("gliaflow", "run", timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        self.expected = self.state()
        shutil.copytree(self.root, self._copy, symlinks=True)

    def restore(self) -> None:
        """Put the checkout back as it was after its run, and end what is left running in it."""
        self.end_processes()
        shutil.rmtree(self.root)
        self.refill()

    def refill(self) -> None:
        """Copy the checkout as it was after its run to the place of the checkout, an empty disk."""
        shutil.copytree(self._copy, self.root, symlinks=True, dirs_exist_ok=True)

    @contextmanager
    def on_small_disk(self, mib: int) -> Iterator[Path]:
        """Move the checkout to a separate disk for the duration of the block; yield the disk.

        Raises:
            disks.NotAllowedError: this account may not mount.
        """
        with disks.mounted(self.root, mib):
            self.refill()
            yield self.root
            self.end_processes()

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

    def start(self, *command: str, log: Path, **variables: str) -> subprocess.Popen[bytes]:
        """Start a module in the background, as the leader of a process group."""
        with log.open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", *command], cwd=self.root,
                env=self._environment() | variables,
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


def check_same(place: Workplace, *, but: Collection[str] = ()) -> None:
    """Check that the checkout is as its first run left it.

    Args:
        but: keys of the state that may differ.
    """
    state = place.state()
    different = [name for name in place.expected if state[name] != place.expected[name]]
    different = [name for name in different if name not in but]
    assert not different, f"differ from a run that was left alone: {different}"


def check_refused(done: subprocess.CompletedProcess[str], *words: str) -> str:
    """Check that a command ended with one clear sentence; return the sentence."""
    output = done.stdout + done.stderr
    assert done.returncode in (1, 2), f"exit code {done.returncode}: {output[-500:]}"
    assert "Traceback" not in output, output[-1500:]
    sentence = sentence_of(output)
    missing = [word for word in words if word not in sentence]
    assert not missing, f"{missing} not in: {sentence}"
    return sentence


def sentence_of(output: str) -> str:
    """Return the last error message in the output of a command."""
    lines = (line for line in reversed(output.splitlines()) if line.startswith("gliaflow: "))
    sentence = next(lines, "")
    assert sentence, f"no sentence: {output[-500:]}"
    return sentence.removeprefix("gliaflow: ")


def until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)
