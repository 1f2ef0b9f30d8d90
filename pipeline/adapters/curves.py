"""Curves of a training in MLflow while it runs, where MLflow is installed and answers.

Does not decide anything: a training goes on without it, and publishing reads the file
history.csv afterwards.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pipeline.params import Register

TRAINING_TAG = "gliaflow.training"


class Log(Protocol):
    def rows(self, rows: list[dict[str, Any]]) -> None: ...


class _Silent:
    def rows(self, rows: list[dict[str, Any]]) -> None:
        pass


class _Live:
    def __init__(self, client: Any, run_id: str):
        self._client = client
        self._run_id = run_id

    def rows(self, rows: list[dict[str, Any]]) -> None:
        """Log epochs; the first failure is told, and nothing is logged after it."""
        if self._client is None:
            return
        try:
            self._client.log_batch(self._run_id, metrics=curve_metrics(rows))
        except Exception as error:  # whatever the server does, training goes on
            _warn(error)
            self._client = None


@contextmanager
def live(settings_of: Register, *, digest: str, settings: dict[str, Any]) -> Iterator[Log]:
    """A log that sends curves to the run of this training, made new or found again by digest."""
    if importlib.util.find_spec("mlflow") is None:
        yield _Silent()
        return
    try:
        log: Log = _open(settings_of, digest, settings)
    except Exception as error:  # whatever the server does, training goes on
        _warn(error)
        log = _Silent()
    yield log


def tracking_uri(settings_of: Register) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or settings_of.tracking_uri


def curve_metrics(rows: list[dict[str, Any]]) -> list[Any]:
    """Rows of the curves as MLflow takes them, the epoch as step."""
    import time

    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [
        Metric(name, float(value), now, int(row["epoch"]))
        for row in rows
        for name, value in row.items()
        if name != "epoch"
    ]


def experiment_id(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


def find_run(client: Any, experiment: str, tag: str, value: str) -> Any:
    """The newest living run with a tag, None where there is none."""
    runs = client.search_runs(
        [experiment_id(client, experiment)], f"tags.`{tag}` = '{value}'", max_results=1
    )
    return runs[0] if runs else None


def _open(settings_of: Register, digest: str, settings: dict[str, Any]) -> _Live:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(settings_of))
    run = find_run(client, settings_of.experiment, TRAINING_TAG, digest)
    if run is None:
        experiment = experiment_id(client, settings_of.experiment)
        run = client.create_run(experiment, run_name="training", tags={TRAINING_TAG: digest})
        for name, value in settings.items():
            client.log_param(run.info.run_id, f"train.{name}", value)
    return _Live(client, run.info.run_id)


def _warn(error: Exception) -> None:
    print(
        f"train: MLflow does not take the curves ({' '.join(str(error).split())[:200]}); "
        "training goes on, history.csv keeps them",
        file=sys.stderr,
    )
