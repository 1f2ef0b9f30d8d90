import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.adapters.process import processes
from pipeline.adapters.tracking import mlflow_client, training_log

DIGEST = "a" * 64


def rows(*epochs: int) -> list[dict[str, Any]]:
    return [{"network": 1, "epoch": epoch, "val_tversky": epoch / 10} for epoch in epochs]


def all_runs(client: Any, section: Any) -> list[Any]:
    return client.search_runs([mlflow_client.experiment_id(client, section.experiment)])


def left_running(client: Any, section: Any, process: str) -> str:
    """Create a run that says RUNNING, of a process; return its id."""
    experiment = mlflow_client.experiment_id(client, section.experiment)
    run = client.create_run(experiment, tags={training_log.PROCESS_TAG: process})
    assert run.info.status == "RUNNING"
    return run.info.run_id


def train_and_raise(section: Any, error: BaseException) -> None:
    """Log two epochs, then end with an error."""
    with training_log.open_log(section, digest=DIGEST) as log:
        log.rows(rows(1, 2))
        raise error


def status(client: Any, run_id: str) -> str:
    return client.get_run(run_id).info.status


@pytest.fixture
def gone() -> str:
    """The identity of a process that was killed."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    identity = processes.process_identity(process.pid)
    process.kill()
    process.wait()
    assert identity is not None
    return identity


def test_a_finished_training_is_one_finished_run_with_its_curve(client, section):
    with training_log.open_log(section, digest=DIGEST) as log:
        (run,) = all_runs(client, section)
        assert run.info.status == "RUNNING"
        log.rows(rows(1))
        log.rows(rows(2))
    (run,) = all_runs(client, section)
    assert run.info.status == "FINISHED"
    assert run.data.tags[mlflow_client.TRAINING_TAG] == DIGEST
    history = client.get_metric_history(run.info.run_id, "val_tversky")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.1), (2, 0.2)]


def test_a_failed_training_is_a_failed_run_and_its_error_is_passed_on(client, section):
    with pytest.raises(RuntimeError, match="diverged"):
        train_and_raise(section, RuntimeError("diverged"))
    (run,) = all_runs(client, section)
    assert run.info.status == "FAILED"


def test_a_resumed_training_continues_its_run_with_each_epoch_once(client, section):
    with pytest.raises(KeyboardInterrupt):
        train_and_raise(section, KeyboardInterrupt())
    with training_log.open_log(section, digest=DIGEST) as log:
        assert status(client, all_runs(client, section)[0].info.run_id) == "RUNNING"
        log.rows(rows(1, 2, 3))
    (run,) = all_runs(client, section)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "val_tversky")
    assert [metric.step for metric in history] == [1, 2, 3]


def test_another_training_is_another_run(client, section):
    for digest in (DIGEST, "b" * 64):
        with training_log.open_log(section, digest=digest):
            pass
    assert len(all_runs(client, section)) == 2


def test_a_run_names_host_and_process_of_its_training(client, section):
    with training_log.open_log(section, digest=DIGEST):
        pass
    (run,) = all_runs(client, section)
    identity = processes.process_identity(os.getpid())
    assert run.data.tags[training_log.PROCESS_TAG] == f"{socket.gethostname()} {identity}"


def test_a_run_whose_process_is_gone_ends_as_killed(client, section, gone):
    run_id = left_running(client, section, f"{socket.gethostname()} {gone}")
    with training_log.open_log(section, digest=DIGEST):
        assert status(client, run_id) == "KILLED"


def test_a_run_of_a_running_process_or_of_another_host_is_left_alone(client, section, gone):
    identity = processes.process_identity(os.getpid())
    others = (f"{socket.gethostname()} {identity}", f"another-host {gone}", "")
    run_ids = [left_running(client, section, process) for process in others]
    with training_log.open_log(section, digest=DIGEST):
        pass
    assert [status(client, run_id) for run_id in run_ids] == ["RUNNING"] * 3


def test_an_unreachable_server_does_not_stop_a_training(unreachable, capsys):
    with training_log.open_log(unreachable(), digest=DIGEST) as log:
        log.rows(rows(1))
    assert "training continues, and history.csv keeps them" in capsys.readouterr().err


def test_a_server_that_fails_later_is_reported_once_and_does_not_stop_a_training(section, capsys):
    with training_log.open_log(section, digest=DIGEST) as log:
        log.rows(rows(1))
        Path("mlflow.db").write_bytes(b"no database" * 1000)
        log.rows(rows(2))
        log.rows(rows(3))
    assert capsys.readouterr().err.count("MLflow does not accept the curves") == 1


def test_without_mlflow_a_training_runs_without_a_word(section, monkeypatch, capsys):
    monkeypatch.setattr(training_log.importlib.util, "find_spec", lambda name: None)
    with training_log.open_log(section, digest=DIGEST) as log:
        log.rows(rows(1))
    assert capsys.readouterr().err == ""
