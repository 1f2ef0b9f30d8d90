"""The flow `watch`: check the inbox, import complete batches, start a retraining.

Verdicts that nobody approved in time are rejected by it, too.

Each state of the data, named by its digest, starts one retraining. The digest is Prefect's
idempotency key: asking twice starts one run.
"""

from pathlib import Path
from typing import Any, cast

from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Failed

from flows.states import failed_on_error
from pipeline.adapters.checkout.project import Project, find_project
from pipeline.adapters.scans.inbox import Entry
from pipeline.adapters.storage import json_files
from pipeline.app import open_inbox, promotion

RETRAIN = "retrain/lgg"


@task(task_run_name="look")
@failed_on_error
def look(project: Project) -> list[Entry]:
    entries = open_inbox.open_inbox(project).look()
    for entry in entries:
        get_run_logger().info("%s: %s: %s", entry.batch, entry.state, entry.note)
    return entries


@flow(name="watch", validate_parameters=False)
@failed_on_error
def watch(root: str = ".") -> dict[str, Any] | State:
    """Check the inbox once.

    Args:
        root: folder of the checkout that batches are imported into.

    Returns:
        `batches`: names of the batches in the inbox; `started`: digest of the data that a
        retraining was started for, or None.
    """
    project = find_project(Path(root))
    looked = look(project, return_state=True)
    if not looked.is_completed():
        return Failed(message=looked.message)
    entries = cast(list[Entry], looked.result())
    if entries:
        rows = [{"batch": e.batch, "state": e.state, "note": e.note} for e in entries]
        create_table_artifact(key="inbox", table=rows, description="Batches in the inbox")
    for decision in promotion.expire_approvals(project):
        get_run_logger().info(decision.headline)
    return {"batches": [entry.batch for entry in entries], "started": start(project)}


def start(project: Project) -> str | None:
    """Start a retraining on the current data, unless it was started before.

    Returns:
        Digest of the data; None if nothing was started.
    """
    digest = open_inbox.open_inbox(project).data_digest(project.params.fetch.source)
    record = project.local.inbox / "started.json"
    started = json_files.read_json(record) if record.exists() else []
    if digest is None or digest in started:
        return None
    run = _run_retrain(project.root, digest)
    get_run_logger().info("started a retraining: %s, data %s", run.name, digest[:12])
    json_files.write_json(record, [*started, digest])
    return digest


def _run_retrain(root: Path, digest: str) -> FlowRun:
    """Create a run of `retrain` and return at once; for a digest seen before, return its run."""
    run = run_deployment(
        RETRAIN,
        parameters={"root": str(root)},
        idempotency_key=digest,
        tags=[f"data:{digest[:12]}"],
        timeout=0,
        as_subflow=False,
    )
    return cast(FlowRun, run)  # a coroutine only where it is called from async code
