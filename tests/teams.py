"""A checkout with its stack up, for tests against real servers, workers and processes."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import checkouts
import pytest
import s3_server

from pipeline.adapters import files, lifetime
from pipeline.domain import phantom, scans

WATCH = {"poll_seconds": 8, "settle_seconds": 3}
UNDER_WAY = {"SCHEDULED", "PENDING", "RUNNING", "CANCELLING"}
BUSY, TRIES = 503, 5  # two wrote at once; Prefect's own client asks again as well


class Team:
    """A checkout whose stack takes free ports. killed: when a test killed a flow."""

    def __init__(self, root: Path):
        self.root = checkouts.make(root, watch=WATCH)
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost"]
        subprocess.run([*git, "add", "-A"], cwd=root, check=True)
        subprocess.run([*git, "commit", "-qm", "first"], cwd=root, check=True)
        self.prefect, self.mlflow = free_port(), free_port()
        self.credentials = root / ".local/aws-credentials"
        own = checkouts.environment(root)
        self.environment = {
            **{name: value for name, value in own.items() if not name.startswith("AWS_")},
            **s3_server.environment(self.credentials),
            "PREFECT_PORT": str(self.prefect),
            "MLFLOW_PORT": str(self.mlflow),
        }
        self.killed = datetime.now(UTC)

    def stack(self, word: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flows.stack", word], cwd=self.root, env=self.environment,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    def up(self) -> str:
        done = self.stack("up")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pid(self, part: str) -> int:
        return int(self._identity(part).partition(":")[0])

    def alive(self, part: str) -> bool:
        return lifetime.identity(self.pid(part)) == self._identity(part)

    def kill_worker(self) -> None:
        os.kill(self.pid("Prefect worker"), signal.SIGKILL)
        until(lambda: not self.alive("Prefect worker"), seconds=20, why="the worker ended")

    def end_server(self) -> None:
        os.kill(self.pid("Prefect server"), signal.SIGTERM)
        until(lambda: not self.alive("Prefect server"), seconds=40, why="the server ended")

    def api(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.prefect}/api/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        for _ in range(TRIES):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != BUSY:
                    raise
                time.sleep(1)
        pytest.fail(f"the server was busy {TRIES} times: {path}")

    def retrainings(self) -> list[dict[str, Any]]:
        """Runs of `retrain`, oldest first."""
        body = {"flows": {"name": {"any_": ["retrain"]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return self.api("flow_runs/filter", body)

    def ended(self, number: int) -> str:
        """The state in which that many retrainings have ended, empty before."""
        found = [run["state_type"] for run in self.retrainings()]
        return found[-1] if len(found) == number and not UNDER_WAY & set(found) else ""

    def next_look(self) -> dict[str, Any]:
        """The first run of `watch` that starts from now on, once it has ended.

        A run that died with its worker keeps its place until it is known to be dead, two minutes.
        """
        now = datetime.now(UTC)
        body = {
            "flows": {"name": {"any_": ["watch"]}},
            "flow_runs": {
                "start_time": {"after_": now.isoformat()},
                "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}},
            },
            "sort": "START_TIME_ASC",
        }
        return until(
            lambda: self.api("flow_runs/filter", body), seconds=400, why="a look has ended"
        )[0]

    def tell(self, event: str, run: str) -> None:
        """Send the server an event about a run."""
        one = {
            "id": str(uuid.uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": f"prefect.flow-run.{event}",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        }
        self.api("events", [one])

    def acted_on(self, rule: str) -> set[str]:
        """The runs that a rule of the server has acted on."""
        body = {"filter": {"event": {"prefix": ["prefect.automation.triggered"]}}, "limit": 50}
        return {
            event["payload"]["triggering_labels"]["prefect.resource.id"].rpartition(".")[2]
            for event in self.api("events/filter", body)["events"]
            if event["resource"]["prefect.resource.name"] == rule
        }

    def said(self, run: dict[str, Any]) -> str:
        """The first lines that a run logged."""
        body = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(line["message"] for line in self.api("logs/filter", body))

    def start(self) -> None:
        """Start a retraining by hand."""
        body = {"deployments": {"name": {"any_": ["lgg"]}}}
        (deployment,) = self.api("deployments/filter", body)
        self.api(
            f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}}
        )

    def long_training(self, *, seed: int) -> None:
        """Make the next retraining train anew, for most of a minute."""
        checkouts.change(self.root, train={"epochs": 80, "patience": 80, "seed": seed})

    def await_training(self, *, epochs: int = 2) -> int:
        """Wait until a training has finished so many epochs; how many it has."""
        return until(
            lambda: self.epochs() >= epochs and self.epochs(), seconds=240, why="training runs"
        )

    def drop(self, batch: str, *patients: str, broken: str = "") -> None:
        """Draw patients into the inbox; the second slice of `broken` is no tif."""
        for patient in patients:
            folder = self.root / "inbox" / batch / patient
            folder.mkdir(parents=True)
            for name, content in drawn(patient).items():
                (folder / name).write_bytes(content)
            if patient == broken:
                (folder / f"{patient}_2.tif").write_bytes(b"no tif")

    def batches(self) -> dict[str, dict[str, str]]:
        done = checkouts.call(self.root, "gliaflow", "inbox", "--json")
        return {row["batch"]: row for row in json.loads(done.stdout)}

    def registry(self) -> dict[str, Any]:
        return json.loads(checkouts.call(self.root, "gliaflow", "registry", "--json").stdout)

    def digests(self) -> list[str]:
        """Of every version; fails where two versions are the same thing."""
        found = [version["digest"] for version in self.registry()["versions"]]
        assert len(set(found)) == len(found), found
        return found

    def epochs(self) -> int:
        """Epochs of the training that runs; 0 where none has been finished."""
        for note in (self.root / ".local/checkpoints").glob("*/state.json"):
            return len(json.loads(note.read_text())["rows"])
        return 0

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.root / name).open() as stream:
            return list(csv.DictReader(stream))

    def splits(self) -> dict[str, str]:
        return {row["patient"]: row["split"] for row in self.table("data/splits.csv")}

    def processes(self, *words: str) -> list[int]:
        """Processes of this checkout whose command line holds all words."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_text().replace("\0", " ")
                own = (folder / "environ").read_bytes()
            except OSError:
                continue
            mine = f"PYTHONPATH={self.root}".encode() in own
            if mine and all(w in line for w in words) and lifetime.identity(int(folder.name)):
                found.append(int(folder.name))
        return found

    def flow_process(self) -> int:
        """The process of the flow that runs: Prefect started it, and it started DVC."""
        (dvc,) = self.processes("-m dvc repro")
        return int(Path(f"/proc/{dvc}/stat").read_text().rpartition(")")[2].split()[1])

    def _identity(self, part: str) -> str:
        noted = json.loads((self.root / ".local/stack/processes.json").read_text())
        return noted[part]


def drawn(patient: str) -> dict[str, bytes]:
    """File name to content of six slices and their masks."""
    scan, found = phantom.draw(patient, slices=6, size_px=64, seed=99), {}
    for number, (image, mask) in enumerate(zip(scan.images, scan.masks, strict=True), 1):
        for pixels, is_mask in ((image, False), (mask.astype("uint8") * 255, True)):
            name = scans.file_name(patient, number, is_mask=is_mask)
            found[name] = files.encode_tif(pixels)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what: Callable[[], Any], *, seconds: float, why: str) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(1)
    pytest.fail(f"not within {seconds} s: {why}")
