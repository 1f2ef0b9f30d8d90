"""The flow `retrain`: the stages of dvc.yaml one after another, then register, decide, promote.

Knows Prefect, and nothing of what a stage does: the graph is read from dvc.yaml.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.states import Failed

from flows import afterwards, publish, stages
from flows.failing import failed
from flows.watching import incoming_held
from flows.wording import decision_text, headline, metrics_rows
from pipeline.adapters import files, locks, project
from pipeline.adapters.project import Project
from pipeline.adapters.registry import Version
from pipeline.domain import graph
from pipeline.errors import GliaflowError

BUSY = "another retraining works in this checkout"
KEPT_OUT = (
    "Scans that were kept out, and why. Mend the files and drop the patient again in a new batch."
)


@task(task_run_name="{stage}")
def run_stage(own: Project, stage: str, *, is_pending: bool) -> State | None:
    """One stage through DVC, its lines as this task's logs."""
    if not is_pending:
        get_run_logger().info("%s: up to date", stage)
        return None
    try:
        # No batch may come in between what a stage reads and DVC's note of what it read.
        with incoming_held(own) if stage == "fetch" else nullcontext():
            stages.repro(own.root, stage, say=get_run_logger().info)
    except GliaflowError as error:
        return failed(error)
    return None


@task(task_run_name="register")
def register(own: Project) -> Version | State:
    try:
        version = publish.register(own)
    except GliaflowError as error:
        return failed(error)
    get_run_logger().info("version %s, digest %s", version.version, version.digest[:12])
    return version


@task(task_run_name="decide")
def decide(own: Project, version: Version) -> dict[str, Any] | State:
    try:
        decision = publish.decide(own, version)
    except GliaflowError as error:
        return failed(error)
    for reason in decision["reasons"]:
        get_run_logger().info(reason["sentence"])
    return decision


@task(task_run_name="promote")
def promote(own: Project, decision: dict[str, Any]) -> dict[str, Any] | State:
    try:
        return publish.promote(own, decision)
    except GliaflowError as error:
        return failed(error)


@flow(name="retrain", validate_parameters=False)
def retrain(root: str = ".") -> dict[str, Any] | State:
    """Bring the model up to date and judge it.

    One at a time in a checkout: another one waits for its end, since stages, registry and page
    are the same files, and a server may start a run anew that is under way.

    Args:
        root: folder of the checkout to work in.

    Returns:
        The decision, as in reports/decision.json. Where something failed that a person can
        mend, a failed state with that sentence as its message.
    """
    try:
        own = project.find(Path(root))
        own.params()  # a wrong value is told now, not after an hour
    except GliaflowError as error:
        return failed(error)
    lock = own.root / ".local" / "retraining.lock"
    with locks.alone(lock, what=BUSY, say=get_run_logger().info):
        return _retrain(own)


def _retrain(own: Project) -> dict[str, Any] | State:
    try:
        afterwards.track_batches(own.root, own.path("incoming"))
        pending = graph.with_followers(stages.changed(own.root), own.stages)
    except GliaflowError as error:
        return failed(error)
    for stage in own.order():
        done = run_stage(own, stage, is_pending=stage in pending, return_state=True)
        if not done.is_completed():
            return Failed(message=done.message)
    registered = register(own, return_state=True)
    if not registered.is_completed():
        return Failed(message=registered.message)
    decided = decide(own, registered.result(), return_state=True)
    if not decided.is_completed():
        return Failed(message=decided.message)
    promoted = promote(own, decided.result(), return_state=True)
    if not promoted.is_completed():
        return Failed(message=promoted.message)
    decision = promoted.result()
    _artifacts(own, decision)
    broken = _follow_up(own, decision)
    if broken:
        return Failed(message=f"{headline(decision)} Afterwards: {'; '.join(broken)}")
    return decision


@task(task_run_name="push")
def push(own: Project) -> str | State:
    try:
        said = afterwards.push(own.root)
    except GliaflowError as error:
        return failed(error)
    get_run_logger().info(said)
    return said


@task(task_run_name="commit")
def commit(own: Project, decision: dict[str, Any]) -> str | State:
    try:
        said = afterwards.commit(own, decision)
    except GliaflowError as error:
        return failed(error)
    get_run_logger().info(said)
    return said


@task(task_run_name="notify")
def notify(own: Project, decision: dict[str, Any], command: str) -> str | State:
    try:
        return afterwards.notify(command, decision, own.root)
    except GliaflowError as error:
        return failed(error)


def _follow_up(own: Project, decision: dict[str, Any]) -> list[str]:
    """Everything after the decision; the sentences of what failed."""
    wanted = own.params().watch
    states = [push(own, return_state=True)]
    if wanted.git_commit:
        states.append(commit(own, decision, return_state=True))
    if wanted.notify:
        states.append(notify(own, decision, wanted.notify, return_state=True))
    return [state.message or state.name for state in states if not state.is_completed()]


def _artifacts(own: Project, decision: dict[str, Any]) -> None:
    """What people look at first on the run's page: scores, decision, and the way to the report."""
    scores = files.read_json(own.path("scores"))
    create_table_artifact(key="metrics", table=metrics_rows(scores), description="Scores")
    quarantine = files.read_table(own.path("quarantine"))
    if not quarantine.empty:
        rows = quarantine.fillna("").to_dict("records")
        create_table_artifact(key="quarantine", table=rows, description=KEPT_OUT)
    create_markdown_artifact(key="decision", markdown=decision_text(decision))
    create_link_artifact(
        key="report", link=own.path("index").resolve().as_uri(), link_text="the report"
    )
