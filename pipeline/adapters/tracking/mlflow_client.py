"""Calls to the MLflow client that the training log and the registry share."""

import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from pipeline.adapters.storage import private_files
from pipeline.errors import GliaflowError
from pipeline.params import Register

TRAINING_TAG = "gliaflow.training"
SQLITE = "sqlite:///"
RUNS_PER_PAGE = 1000
BUSY = "database is locked"  # what SQLite says while another process writes
BUSY_SECONDS = 60
# With MLflow's own settings a server that is gone is given up after four minutes.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "12"}
QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


def tracking_uri(section: Register, root: Path) -> str:
    """Return the address of MLflow: `MLFLOW_TRACKING_URI`, else that of params.yaml.

    Args:
        root: folder that a relative SQLite path is relative to. Elsewhere it would mean another
            file, and a new, empty registry.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or section.tracking_uri
    path = sqlite_path(uri)
    return f"{SQLITE}{root / path}" if path is not None else uri


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a SQLite address, or None for another address."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def prepare(uri: str) -> None:
    """Get ready to talk to MLflow: limit waiting and logs, and check a SQLite file.

    A new SQLite file is created with mode 600.

    Raises:
        GliaflowError: the SQLite file is a folder, damaged, or may not be written.
    """
    # It logs the tables that it creates, and tracebacks of errors that it raises as well.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    for name, value in (PATIENCE | QUIET).items():
        os.environ.setdefault(name, value)
    path = sqlite_path(uri)
    if path is not None:
        _check_sqlite(path)


def _check_sqlite(path: Path) -> None:
    hint = "move it away, and restore it from a backup"
    if path.is_dir():
        raise GliaflowError(f"{path} is a folder; expected MLflow's SQLite database: {hint}")
    try:
        private_files.touch_private(path)
        with path.open("rb") as stream:
            header = stream.read(16)
        if header and header != b"SQLite format 3\0":
            raise GliaflowError(f"{path} is not a SQLite database; expected MLflow's: {hint}")
        if not os.access(path, os.W_OK):
            raise GliaflowError(f"{path} may not be written; change its permissions")
        with sqlite3.connect(path, timeout=10) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
        connection.close()
    except sqlite3.DatabaseError as error:
        raise GliaflowError(f"{path} is damaged ({error}); {hint}") from error
    except OSError as error:
        raise GliaflowError(
            f"{path} cannot be opened ({error.strerror}); expected a file that may be read and "
            "written, in a folder that exists"
        ) from error


class PatientClient:
    """MLflow's client, which calls again while another process writes to SQLite.

    Args:
        client: an `MlflowClient`; all of its methods can be called.
    """

    def __init__(self, client: Any):
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return _patient(getattr(self._client, name))


def _patient(call: Callable[..., Any]) -> Callable[..., Any]:
    """Repeat a call that SQLite refused because it was busy: nothing was written then."""
    from mlflow.exceptions import MlflowException

    @wraps(call)
    def repeated(*args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return call(*args, **kwargs)
            except MlflowException as error:
                if BUSY not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(random.uniform(0.05, 0.5))

    return repeated


def log_epochs(client: Any, run_id: str, rows: Iterable[Mapping[Any, Any]]) -> None:
    """Log epochs to a run, with the epoch as step; skip epochs that the run already has.

    Args:
        rows: of history.csv. Epochs are numbered through all networks, so that no two share
            a step.
    """
    from mlflow.entities import Metric

    logged = {metric.step for metric in client.get_metric_history(run_id, "val_tversky")}
    now = int(time.time() * 1000)
    metrics = [
        Metric(name, float(value), now, int(row["epoch"]))
        for row in rows
        if row["epoch"] not in logged
        for name, value in row.items()
        if name not in ("network", "epoch")
    ]
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def experiment_id(client: Any, name: str) -> str:
    """Return the id of an experiment; create it if there is none of that name."""
    experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id if experiment else client.create_experiment(name))


def find_run(client: Any, experiment: str, tag: str, value: str) -> Any:
    """Return the newest run that has a tag with this value, or None."""
    runs = client.search_runs(
        [experiment_id(client, experiment)], f"tags.`{tag}` = '{value}'", max_results=1
    )
    return runs[0] if runs else None


def all_runs(client: Any, experiment: str, *, order_by: str) -> list[Any]:
    """Return every run of an experiment, page by page.

    Args:
        experiment: its id.
    """
    runs: list[Any] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment], order_by=[order_by], max_results=RUNS_PER_PAGE, page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs
