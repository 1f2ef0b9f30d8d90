"""A checkout with its local stack, for tests against real servers, workers and processes."""

import base64
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

from pipeline.adapters.process import processes
from pipeline.adapters.scans import image_files
from pipeline.domain import phantom, scans

WATCH = {"poll_seconds": 8, "settle_seconds": 3}
UNFINISHED = {"SCHEDULED", "PENDING", "RUNNING", "CANCELLING"}
BUSY, TRIES = 503, 5  # two clients wrote at once; Prefect's client retries as well


class Team:
    """A checkout whose stack uses free ports.

    killed: the time at which a test last killed a flow.
    """

    def __init__(self, root: Path):
        self.root = checkouts.make(root, watch=WATCH)
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost"]
        subprocess.run([*git, "add", "-A"], cwd=root, check=True)
        subprocess.run([*git, "commit", "-qm", "first"], cwd=root, check=True)
        self.prefect, self.mlflow = free_port(), free_port()
        self.credentials = root / ".local/aws-credentials"
        inherited = checkouts.environment(root)
        self.environment = {
            **{name: value for name, value in inherited.items() if not name.startswith("AWS_")},
            **s3_server.environment(self.credentials),
            "PREFECT_PORT": str(self.prefect),
            "MLFLOW_PORT": str(self.mlflow),
        }
        self.killed = datetime.now(UTC)

    def stack(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run `gliaflow up` or `gliaflow down`."""
        return subprocess.run(
            [sys.executable, "-m", "gliaflow", command], cwd=self.root, env=self.environment,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    def up(self) -> str:
        done = self.stack("up")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pid(self, part: str) -> int:
        return int(self._identity(part).partition(":")[0])

    def is_running(self, part: str) -> bool:
        return processes.process_identity(self.pid(part)) == self._identity(part)

    def kill_worker(self) -> None:
        os.kill(self.pid("Prefect worker"), signal.SIGKILL)
        until(
            lambda: not self.is_running("Prefect worker"), seconds=20, what="the worker has ended"
        )

    def end_server(self) -> None:
        os.kill(self.pid("Prefect server"), signal.SIGTERM)
        until(
            lambda: not self.is_running("Prefect server"), seconds=40, what="the server has ended"
        )

    def api(self, path: str, body: Any) -> Any:
        """Call the Prefect API; return its answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.prefect}/api/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **self.login(), **self.csrf_token()},
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

    def login(self) -> dict[str, str]:
        """Return the header that carries the stack's login."""
        login = json.loads((self.root / ".local/stack/login.json").read_text())
        words = f"{login['user']}:{login['password']}".encode()
        return {"Authorization": f"Basic {base64.b64encode(words).decode()}"}

    def csrf_token(self) -> dict[str, str]:
        """Return the headers that a change of the server needs."""
        url = f"http://127.0.0.1:{self.prefect}/api/csrf-token?client=tests"
        request = urllib.request.Request(url, headers=self.login())
        with urllib.request.urlopen(request, timeout=30) as answer:
            token = json.loads(answer.read())["token"]
        return {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "tests"}

    def retrainings(self) -> list[dict[str, Any]]:
        """Return the runs of `retrain`, oldest first."""
        body = {"flows": {"name": {"any_": ["retrain"]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return self.api("flow_runs/filter", body)

    def final_state(self, *, retrainings: int) -> str:
        """Return the state of the last retraining once so many have ended; before that, ''."""
        states = [run["state_type"] for run in self.retrainings()]
        return states[-1] if len(states) == retrainings and not UNFINISHED & set(states) else ""

    def next_check(self) -> dict[str, Any]:
        """Wait for the first run of `watch` that starts from now on, and return it.

        A run that died with its worker holds its slot until the server detects it: two minutes.
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
            lambda: self.api("flow_runs/filter", body), seconds=400, what="a check has ended"
        )[0]

    def send_event(self, name: str, run: str) -> None:
        """Send the server an event of a flow run, as `Pending`."""
        event = {
            "id": str(uuid.uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": f"prefect.flow-run.{name}",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        }
        self.api("events", [event])

    def acted_on(self, rule: str) -> set[str]:
        """Return the ids of the runs that a rule of the server has acted on."""
        body = {"filter": {"event": {"prefix": ["prefect.automation.triggered"]}}, "limit": 50}
        return {
            event["payload"]["triggering_labels"]["prefect.resource.id"].rpartition(".")[2]
            for event in self.api("events/filter", body)["events"]
            if event["resource"]["prefect.resource.name"] == rule
        }

    def logs(self, run: dict[str, Any]) -> str:
        """Return the first lines that a run logged."""
        body = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(line["message"] for line in self.api("logs/filter", body))

    def start(self) -> None:
        """Start a retraining, as `prefect deployment run` does."""
        body = {"deployments": {"name": {"any_": ["lgg"]}}}
        (deployment,) = self.api("deployments/filter", body)
        self.api(
            f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}}
        )

    def long_training(self, *, seed: int) -> None:
        """Change the parameters so that the next retraining trains for most of a minute."""
        checkouts.change(self.root, train={"epochs": 80, "patience": 80, "seed": seed})

    def await_training(self, *, epochs: int = 2) -> int:
        """Wait until a training has finished so many epochs; return how many it has."""
        return until(
            lambda: self.epochs() >= epochs and self.epochs(), seconds=240, what="training runs"
        )

    def drop(self, batch: str, *patients: str, broken: str = "") -> None:
        """Put synthetic patients into the inbox; the second slice of `broken` is not a tif."""
        for patient in patients:
            folder = self.root / "inbox" / batch / patient
            folder.mkdir(parents=True)
            for name, content in scan_files(patient).items():
                (folder / name).write_bytes(content)
            if patient == broken:
                (folder / f"{patient}_2.tif").write_bytes(b"not a tif")

    def batches(self) -> dict[str, dict[str, str]]:
        """Return the rows of `gliaflow inbox` by batch."""
        done = checkouts.call(self.root, "gliaflow", "inbox", "--json")
        return {row["batch"]: row for row in json.loads(done.stdout)}

    def registry(self) -> dict[str, Any]:
        return json.loads(checkouts.call(self.root, "gliaflow", "registry", "--json").stdout)

    def digests(self) -> list[str]:
        """Return the digest of every version; fail if two are equal."""
        digests = [version["digest"] for version in self.registry()["versions"]]
        assert len(set(digests)) == len(digests), digests
        return digests

    def epochs(self) -> int:
        """Return the finished epochs in the checkpoint; 0 if there is none."""
        for state in (self.root / ".local/checkpoints").glob("*/state.json"):
            return len(json.loads(state.read_text())["rows"])
        return 0

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.root / name).open() as stream:
            return list(csv.DictReader(stream))

    def splits(self) -> dict[str, str]:
        return {row["patient"]: row["split"] for row in self.table("data/splits.csv")}

    def processes(self, *words: str) -> list[int]:
        """Return the processes of this checkout whose command line contains all words."""
        pids = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_text().replace("\0", " ")
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            is_of_checkout = f"PYTHONPATH={self.root}".encode() in environment
            is_match = is_of_checkout and all(word in line for word in words)
            if is_match and processes.process_identity(int(folder.name)):
                pids.append(int(folder.name))
        return pids

    def flow_process(self) -> int:
        """Return the process of the running flow: the parent of DVC."""
        (dvc,) = self.processes("-m dvc repro")
        return int(Path(f"/proc/{dvc}/stat").read_text().rpartition(")")[2].split()[1])

    def _identity(self, part: str) -> str:
        identities = json.loads((self.root / ".local/stack/processes.json").read_text())
        return identities[part]


def scan_files(patient: str) -> dict[str, bytes]:
    """Generate six slices of a patient and their masks: file name to content."""
    scan, contents = phantom.generate(patient, slices=6, size_px=64, seed=99), {}
    for number, (image, mask) in enumerate(zip(scan.images, scan.masks, strict=True), 1):
        for pixels, is_mask in ((image, False), (mask.astype("uint8") * 255, True)):
            name = scans.file_name(patient, number, is_mask=is_mask)
            contents[name] = image_files.encode_tif(pixels)
    return contents


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Call `condition` every second until it returns something true; return that.

    Args:
        what: the condition in words, for the message of a timeout.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(1)
    pytest.fail(f"not within {seconds} s: {what}")
