"""The flow `retrain`, started twice in one checkout."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import checkouts
import pytest
import teams

from pipeline.adapters.process import processes


@pytest.mark.slow
def test_a_second_retraining_waits_for_the_first_and_finds_its_decision(tmp_path):
    root = checkouts.make(tmp_path)
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "gliaflow", "run"], cwd=root, text=True,
            env=checkouts.environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert sum("another retraining runs in this checkout (process" in out for out in outputs) == 1
    assert sum("train: up to date" in out for out in outputs) == 1
    registry = json.loads(checkouts.call(root, "gliaflow", "registry", "--json").stdout)
    assert [version["version"] for version in registry["versions"]] == [1]
    assert [decision["verdict"] for decision in registry["decisions"]] == ["promote"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_the_server_of_a_run_ends_with_it_however_it_ends(tmp_path, number):
    root = checkouts.make(tmp_path)
    environment = checkouts.environment(root) | {"GLIAFLOW_TEST": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "gliaflow", "run"], cwd=root, env=environment,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def servers() -> list[int]:
        pids = processes.with_variable("GLIAFLOW_TEST", str(tmp_path))
        return [pid for pid in pids if b"flows.server" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    teams.until(servers, seconds=60, what="the server runs")
    stages = lambda: "Running stage" in (tmp_path / "log").read_text(errors="replace")  # noqa: E731
    teams.until(stages, seconds=120, what="a stage runs")
    os.kill(run.pid, number)
    run.wait(timeout=60)
    teams.until(
        lambda: not processes.with_variable("GLIAFLOW_TEST", str(tmp_path)),
        seconds=60,
        what="nothing of the run is left",
    )
