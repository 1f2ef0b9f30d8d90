"""The flow `watch`: looks into the inbox, takes in what has arrived, starts a retraining.

One retraining for each digest of the data: Prefect's idempotency key makes sure that asking
twice starts one.
"""

from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.deployments import run_deployment

from flows.failing import failed
from flows.watching import open_inbox
from pipeline.adapters import files, project
from pipeline.adapters.inbox import Entry
from pipeline.adapters.project import Project
from pipeline.errors import GliaflowError

RETRAIN = "retrain/lgg"


@task(task_run_name="look")
def look(own: Project) -> list[Entry] | State:
    try:
        entries = open_inbox(own).look()
    except GliaflowError as error:
        return failed(error)
    for entry in entries:
        get_run_logger().info("%s: %s: %s", entry.batch, entry.state, entry.note)
    return entries


@flow(name="watch", validate_parameters=False)
def watch(root: str = ".") -> dict[str, Any] | State:
    """Look once.

    Args:
        root: folder of the checkout to take batches into.

    Returns:
        `batches`: what was seen; `started`: the digest of the data that a retraining was
        started for, or null.
    """
    try:
        own = project.find(Path(root))
        own.params()
    except GliaflowError as error:
        return failed(error)
    seen = look(own, return_state=True)
    if not seen.is_completed():
        return failed(GliaflowError(seen.message or "the look failed"))
    entries = seen.result()
    if entries:
        rows = [{"batch": e.batch, "state": e.state, "note": e.note} for e in entries]
        create_table_artifact(key="inbox", table=rows, description="Batches in the inbox")
    return {"batches": [e.batch for e in entries], "started": start(own)}


def start(own: Project) -> str | None:
    """Start a retraining for the data as it is, unless one was started for it before."""
    digest = open_inbox(own).data_digest(own.params().fetch.source)
    note = own.root / ".local" / "inbox" / "started.json"
    if digest is None or (note.exists() and digest in files.read_json(note)):
        return None
    run = run_deployment(
        RETRAIN,
        parameters={"root": str(own.root)},
        idempotency_key=digest,
        tags=[f"data:{digest[:12]}"],
        timeout=0,
        as_subflow=False,
    )
    get_run_logger().info("a retraining was started: %s, data %s", run.name, digest[:12])
    files.write_json(note, [*(files.read_json(note) if note.exists() else []), digest])
    return digest
