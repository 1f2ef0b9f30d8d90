"""Curves of a training in MLflow while it runs, where MLflow is installed and answers.

Does not decide anything: a training goes on without it, and publishing reads the file
history.csv afterwards.
"""

import importlib.util
import logging
import os
import sys
import time
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
            send(self._client, self._run_id, rows)
        except Exception as error:  # whatever the server does, training goes on
            _warn(error)
            self._client = None


@contextmanager
def live(settings: Register, *, digest: str) -> Iterator[Log]:
    """A log that sends curves to the run of this training, made new or found again by digest."""
    if importlib.util.find_spec("mlflow") is None:
        yield _Silent()
        return
    try:
        log: Log = _open(settings, digest)
    except Exception as error:  # whatever the server does, training goes on
        _warn(error)
        log = _Silent()
    yield log


def tracking_uri(settings: Register) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking_uri


def send(client: Any, run_id: str, rows: list[dict[str, Any]]) -> None:
    """Log epochs to a run, the epoch as step; what the run holds already is left out.

    Epochs of several networks count on, so that none of them share a step.
    """
    from mlflow.entities import Metric

    there = {metric.step for metric in client.get_metric_history(run_id, "val_tversky")}
    now = int(time.time() * 1000)
    metrics = [
        Metric(name, float(value), now, int(row["epoch"]))
        for row in rows
        if row["epoch"] not in there
        for name, value in row.items()
        if name not in ("network", "epoch")
    ]
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def experiment_id(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


def find_run(client: Any, experiment: str, tag: str, value: str) -> Any:
    """The newest living run with a tag, None where there is none."""
    runs = client.search_runs(
        [experiment_id(client, experiment)], f"tags.`{tag}` = '{value}'", max_results=1
    )
    return runs[0] if runs else None


def _open(settings: Register, digest: str) -> _Live:
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # its tables, made at first use
    client = MlflowClient(tracking_uri(settings))
    run = find_run(client, settings.experiment, TRAINING_TAG, digest)
    if run is None:
        experiment = experiment_id(client, settings.experiment)
        run = client.create_run(experiment, run_name="training", tags={TRAINING_TAG: digest})
    return _Live(client, run.info.run_id)


def _warn(error: Exception) -> None:
    print(
        f"train: MLflow does not take the curves ({' '.join(str(error).split())[:200]}); "
        "training goes on, history.csv keeps them",
        file=sys.stderr,
    )
