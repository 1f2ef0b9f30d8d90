"""New scans start a retraining by themselves: real server, real worker, real processes.

Slow, a few minutes in all: `make test-all` runs it, `make test` does not.
"""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkouts
import pytest

from pipeline.adapters import files, lifetime
from pipeline.domain import phantom, scans

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WATCH = {"poll_seconds": 5, "settle_seconds": 3}


class Team:
    """A checkout with its stack up, on free ports."""

    def __init__(self, root: Path):
        self.root = checkouts.make(root, watch=WATCH)
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost"]
        subprocess.run([*git, "add", "-A"], cwd=root, check=True)
        subprocess.run([*git, "commit", "-qm", "first"], cwd=root, check=True)
        self.prefect, self.mlflow = free_port(), free_port()
        self.environment = checkouts.environment(root) | {
            "PREFECT_PORT": str(self.prefect),
            "MLFLOW_PORT": str(self.mlflow),
        }

    def stack(self, word: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flows.stack", word], cwd=self.root, env=self.environment,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    def pid(self, part: str) -> int:
        noted = json.loads((self.root / ".local/stack/processes.json").read_text())
        return int(noted[part].partition(":")[0])

    def api(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.prefect}/api/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def retrainings(self) -> list[dict[str, Any]]:
        """Runs of `retrain`, oldest first."""
        body = {"flows": {"name": {"any_": ["retrain"]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return self.api("flow_runs/filter", body)

    def start(self) -> None:
        """Start a retraining by hand."""
        body = {"deployments": {"name": {"any_": ["lgg"]}}}
        (deployment,) = self.api("deployments/filter", body)
        self.api(
            f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}}
        )

    def drop(self, batch: str, *patients: str, broken: str = "") -> None:
        """Draw patients into the inbox; the second slice of `broken` is no tif."""
        for patient in patients:
            folder = self.root / "inbox" / batch / patient
            folder.mkdir(parents=True)
            scan = phantom.draw(patient, slices=6, size_px=64, seed=99)
            for number, (image, mask) in enumerate(zip(scan.images, scan.masks, strict=True), 1):
                for pixels, is_mask in ((image, False), (mask.astype("uint8") * 255, True)):
                    name = scans.file_name(patient, number, is_mask=is_mask)
                    (folder / name).write_bytes(files.encode_tif(pixels))
            if patient == broken:
                (folder / f"{patient}_2.tif").write_bytes(b"no tif")

    def batches(self) -> dict[str, dict[str, str]]:
        done = checkouts.call(self.root, "gliaflow", "inbox", "--json")
        return {row["batch"]: row for row in json.loads(done.stdout)}

    def registry(self) -> dict[str, Any]:
        return json.loads(checkouts.call(self.root, "gliaflow", "registry", "--json").stdout)

    def epochs(self) -> int:
        """Epochs of the training that runs; 0 where none has been finished."""
        for note in (self.root / ".local/checkpoints").glob("*/state.json"):
            return len(json.loads(note.read_text())["rows"])
        return 0

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.root / name).open() as stream:
            return list(csv.DictReader(stream))

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


@pytest.fixture(scope="module")
def team(tmp_path_factory) -> Iterator[Team]:
    team = Team(tmp_path_factory.mktemp("team"))
    try:
        up = team.stack("up")
        assert up.returncode == 0, up.stdout + up.stderr
        yield team
    finally:
        team.stack("down")


def states(team: Team) -> list[str]:
    return [run["state_type"] for run in team.retrainings()]


def long_training(team: Team, *, seed: int) -> None:
    """Make the next retraining train anew, for about a minute."""
    checkouts.change(team.root, train={"epochs": 80, "patience": 80, "seed": seed})


def ended(team: Team, number: int) -> str:
    """The state in which that many retrainings have ended, empty before."""
    found = states(team)
    running = {"SCHEDULED", "PENDING", "RUNNING", "CANCELLING"}
    return found[-1] if len(found) == number and not running & set(found) else ""


def test_starting_twice_is_harmless(team):
    before = team.pid("Prefect server")
    again = team.stack("up")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("runs already") == 3
    assert team.pid("Prefect server") == before


def test_a_port_in_use_is_a_sentence(tmp_path, team):
    root = checkouts.make(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "flows.stack", "up"], cwd=root, capture_output=True, text=True,
        env=checkouts.environment(root) | {"PREFECT_PORT": str(team.prefect)},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"port {team.prefect} of 127.0.0.1 is in use" in done.stderr


def test_a_dropped_batch_ends_as_a_judged_version_and_its_broken_patient_in_quarantine(team):
    team.drop("june", "NEW_AX_0001", "NEW_BR_0002", "NEW_CY_0003", broken="NEW_CY_0003")
    team.drop("july", "NEW_AX_0004")
    assert until(lambda: ended(team, 1), seconds=240, why="one retraining ended") == "COMPLETED"
    patients = {row["patient"] for row in team.table("data/splits.csv")}
    assert {"NEW_AX_0001", "NEW_BR_0002", "NEW_AX_0004"} <= patients
    assert "NEW_CY_0003" not in patients
    (kept_out,) = team.table("data/quarantine.csv")
    assert (kept_out["patient"], kept_out["rule"]) == ("NEW_CY_0003", "unreadable")
    assert kept_out["file"].startswith("june/")
    batches = team.batches()
    assert batches["june"]["state"] == batches["july"]["state"] == "taken"
    assert batches["june"]["kept_out"] == "NEW_CY_0003: unreadable"
    registry = team.registry()
    assert registry["champion"] == 1
    digest = registry["versions"][0]["digest"]
    assert registry["decisions"][0]["candidate"]["digest"] == digest
    (run,) = team.retrainings()
    found = team.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert {"decision", "metrics", "quarantine", "report"} <= {one["key"] for one in found}
    assert digest[:12] in next(one["data"] for one in found if one["key"] == "decision")
    assert (team.root / "data/incoming/june.dvc").exists()


def test_the_same_scans_under_another_name_start_nothing(team):
    team.drop("again", "NEW_AX_0004")
    until(lambda: team.batches().get("again", {}).get("state") == "known", seconds=60, why="known")
    time.sleep(3 * WATCH["poll_seconds"])
    assert len(team.retrainings()) == 1


def test_a_mended_patient_goes_through_and_old_patients_stay_where_they_were(team):
    before = {row["patient"]: row["split"] for row in team.table("data/splits.csv")}
    team.drop("mended", "NEW_CY_0003")
    assert until(lambda: ended(team, 2), seconds=240, why="the second ended") == "COMPLETED"
    after = {row["patient"]: row["split"] for row in team.table("data/splits.csv")}
    assert "NEW_CY_0003" in after
    assert {patient: after[patient] for patient in before} == before
    assert team.table("data/quarantine.csv") == []


def test_a_cancelled_run_ends_its_training_and_frees_the_lock(team):
    long_training(team, seed=11)
    team.start()
    until(lambda: team.epochs() >= 2, seconds=120, why="training runs")
    run = team.retrainings()[-1]
    body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    team.api(f"flow_runs/{run['id']}/set_state", body)
    assert until(lambda: ended(team, 3), seconds=90, why="cancelled") == "CANCELLED"
    until(lambda: not team.processes("pipeline.stages", "train"), seconds=30, why="training ended")
    assert not team.processes("dvc", "repro")


def test_a_killed_flow_is_marked_crashed_its_training_ends_and_the_next_goes_on(team):
    team.start()
    reached = until(lambda: team.epochs() >= 4 and team.epochs(), seconds=120, why="training runs")
    (flow,) = flow_processes(team)
    killed = time.monotonic()
    os.kill(flow, signal.SIGKILL)
    until(lambda: not team.processes("pipeline.stages", "train"), seconds=30, why="training ended")
    assert until(lambda: ended(team, 4), seconds=130, why="crashed") == "CRASHED"
    assert time.monotonic() - killed < 130
    assert team.epochs() >= reached
    team.start()
    assert until(lambda: ended(team, 5), seconds=240, why="the next ended") == "COMPLETED"
    log = (team.root / ".local/stack/prefect-worker.log").read_text()
    assert "train: goes on after epoch" in log
    digests = [version["digest"] for version in team.registry()["versions"]]
    assert len(set(digests)) == len(digests)


def test_a_worker_killed_or_a_server_restarted_in_the_middle_loses_no_run(team):
    long_training(team, seed=12)
    team.start()
    until(lambda: team.epochs() >= 2, seconds=120, why="training runs")
    os.kill(team.pid("Prefect worker"), signal.SIGKILL)
    os.kill(team.pid("Prefect server"), signal.SIGTERM)
    until(lambda: not alive(team, "Prefect server"), seconds=40, why="the server ended")
    up = team.stack("up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert until(lambda: ended(team, 6), seconds=300, why="the run ended") == "COMPLETED"
    digests = [version["digest"] for version in team.registry()["versions"]]
    assert len(set(digests)) == len(digests)


def test_down_ends_every_process_of_the_stack(team):
    pids = [team.pid(part) for part in ("Prefect server", "MLflow", "Prefect worker")]
    down = team.stack("down")
    assert down.stdout.startswith("ended: Prefect worker, MLflow, Prefect server")
    assert [lifetime.identity(pid) for pid in pids] == [None] * 3
    assert "nothing of it runs" in team.stack("down").stdout


def alive(team: Team, part: str) -> bool:
    noted = json.loads((team.root / ".local/stack/processes.json").read_text())
    return lifetime.identity(int(noted[part].partition(":")[0])) == noted[part]


def flow_processes(team: Team) -> list[int]:
    """The process of the flow that runs: Prefect started it, and it started DVC."""
    parents = []
    for pid in team.processes("-m dvc repro"):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        parents.append(int(fields[1]))
    return parents
