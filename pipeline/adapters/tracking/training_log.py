"""Send training curves to MLflow while a training runs, if MLflow is installed and answers.

Training never depends on it: publishing reads history.csv afterwards.
"""

import importlib.util
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pipeline.adapters.process import processes
from pipeline.adapters.tracking import mlflow_client
from pipeline.domain.redaction import redact
from pipeline.params import Register

PROCESS_TAG = "gliaflow.process"


class TrainingLog(Protocol):
    """Receives rows of history.csv, one per epoch."""

    def rows(self, rows: list[dict[str, Any]]) -> None: ...


class _NoLog:
    def rows(self, rows: list[dict[str, Any]]) -> None:
        pass

    def end(self, status: str) -> None:
        pass


class _MlflowLog:
    """Logs to one run; after the first failure it says so and logs nothing more."""

    def __init__(self, client: Any, run_id: str):
        self._client = client
        self._run_id = run_id

    def rows(self, rows: list[dict[str, Any]]) -> None:
        self._try(lambda client: mlflow_client.log_epochs(client, self._run_id, rows))

    def end(self, status: str) -> None:
        self._try(lambda client: client.set_terminated(self._run_id, status))

    def _try(self, action: Any) -> None:
        if self._client is None:
            return
        try:
            action(self._client)
        except Exception as error:  # whatever the server does, training continues
            _warn(error)
            self._client = None


@contextmanager
def open_log(section: Register, *, digest: str) -> Iterator[TrainingLog]:
    """Open a log that sends curves to the MLflow run of this training.

    The run is created, or found by digest where an earlier process began the training. It
    ends as FINISHED, or as FAILED if the block raises. Runs that a killed process on this
    host left RUNNING end as KILLED.

    Args:
        digest: names the training.
    """
    log = _open(section, digest) if importlib.util.find_spec("mlflow") else _NoLog()
    try:
        yield log
    except BaseException:
        log.end("FAILED")
        raise
    log.end("FINISHED")


def _open(section: Register, digest: str) -> _MlflowLog | _NoLog:
    try:
        from mlflow import MlflowClient

        uri = mlflow_client.tracking_uri(section, Path.cwd())  # DVC runs stages in the root
        mlflow_client.prepare(uri)
        client = MlflowClient(uri)
        experiment = mlflow_client.experiment_id(client, section.experiment)
        _end_killed_runs(client, experiment)
        tag = mlflow_client.TRAINING_TAG
        run = mlflow_client.find_run(client, section.experiment, tag, digest)
        if run is None:
            run = client.create_run(experiment, run_name="training", tags={tag: digest})
        run_id = run.info.run_id
        client.update_run(run_id, status="RUNNING")
        client.set_tag(run_id, PROCESS_TAG, _this_process())
        return _MlflowLog(client, run_id)
    except Exception as error:  # whatever the server does, training continues
        _warn(error)
        return _NoLog()


def _end_killed_runs(client: Any, experiment: str) -> None:
    """Mark runs of this host as KILLED whose process is gone and which are still RUNNING."""
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        host, _, identity = run.data.tags.get(PROCESS_TAG, "").partition(" ")
        if host == socket.gethostname() and not processes.is_running(identity):
            client.set_terminated(run.info.run_id, "KILLED")


def _this_process() -> str:
    return f"{socket.gethostname()} {processes.process_identity(os.getpid())}"


def _warn(error: Exception) -> None:
    print(
        f"train: MLflow does not accept the curves ({redact(' '.join(str(error).split())[:200])}); "
        "training continues, and history.csv keeps them",
        file=sys.stderr,
    )
