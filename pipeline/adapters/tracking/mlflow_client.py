"""Calls to the MLflow client that the training log and the registry share."""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.params import Register

TRAINING_TAG = "gliaflow.training"


def tracking_uri(section: Register) -> str:
    """Return the address of MLflow: `MLFLOW_TRACKING_URI`, else that of params.yaml."""
    return os.environ.get("MLFLOW_TRACKING_URI") or section.tracking_uri


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
