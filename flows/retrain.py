"""The flow `retrain`: run the stages of dvc.yaml in order, then register, decide, promote.

Knows Prefect, and nothing of what a stage does: the graph is read from dvc.yaml.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

from prefect import State, flow, get_run_logger, task
from prefect.states import Failed

from flows import approve, artifacts
from flows.states import failed_on_error
from pipeline.adapters.checkout import dvc_holders, stage_runs
from pipeline.adapters.checkout.project import Project, find_project
from pipeline.adapters.process import locks
from pipeline.adapters.tracking.versions import Version
from pipeline.app import follow_up, open_inbox
from pipeline.app.promotion import Publisher, open_publisher
from pipeline.domain import graph
from pipeline.domain.decisions import DecisionRecord

BUSY = "another retraining runs in this checkout"


@task(task_run_name="{stage}")
@failed_on_error
def run_stage(project: Project, stage: str, *, is_pending: bool) -> None:
    """Run one stage through DVC; its output becomes the logs of this task."""
    if not is_pending:
        get_run_logger().info("%s: up to date", stage)
        return
    # No batch may arrive after `fetch` read the folder and before DVC hashed it.
    guard = open_inbox.hold_incoming(project) if stage == "fetch" else nullcontext()
    with guard:
        stage_runs.repro_stage(project.root, stage, say=get_run_logger().info)


@task(task_run_name="register")
@failed_on_error
def register(publisher: Publisher) -> Version:
    version = publisher.register()
    get_run_logger().info("version %s, digest %s", version.version, version.digest[:12])
    return version


@task(task_run_name="decide")
@failed_on_error
def decide(publisher: Publisher, version: Version) -> DecisionRecord:
    decision = publisher.decide(version)
    for reason in decision.reasons:
        get_run_logger().info(reason.sentence)
    return decision


@task(task_run_name="promote")
@failed_on_error
def promote(publisher: Publisher, decision: DecisionRecord) -> DecisionRecord:
    return publisher.apply(decision)


@task(task_run_name="ask")
@failed_on_error
def ask(project: Project, decision: DecisionRecord) -> None:
    get_run_logger().info(approve.ask(project, decision))


@task(task_run_name="push")
@failed_on_error
def push(project: Project) -> None:
    get_run_logger().info(follow_up.push(project.root))


@task(task_run_name="commit")
@failed_on_error
def commit(project: Project, decision: DecisionRecord) -> None:
    get_run_logger().info(follow_up.commit(project, decision))


@task(task_run_name="notify")
@failed_on_error
def notify(project: Project, decision: DecisionRecord, command: str) -> None:
    get_run_logger().info(follow_up.notify(command, decision, project.root))


@flow(name="retrain", validate_parameters=False)
@failed_on_error
def retrain(root: str = ".") -> dict[str, Any] | State:
    """Bring the model up to date and judge it.

    Only one retraining runs in a checkout at a time; the next waits until it has ended. They
    share the files of stages, registry and report, and a server may start a running flow again.

    Args:
        root: folder of the checkout.

    Returns:
        The decision, as in reports/decision.json; a failed state with the error message where
        a user can fix the cause.
    """
    project = find_project(Path(root))  # invalid parameters fail now, not after an hour's wait
    say = get_run_logger().info
    with locks.hold(project.local.retraining_lock, what=BUSY, say=say):
        # Waiting may have taken an hour: read the checkout again.
        return _retrain(find_project(project.root))


def _retrain(project: Project) -> dict[str, Any] | State:
    for dropped in dvc_holders.release_stale(project.root):
        get_run_logger().info(dropped)
    follow_up.track_batches(project.root, project.path("incoming"))
    pending = graph.with_downstream(stage_runs.changed_stages(project.root), project.stages)
    for stage in project.order():
        state = run_stage(project, stage, is_pending=stage in pending, return_state=True)
        if not state.is_completed():
            return Failed(message=state.message)
    publisher = open_publisher(project)
    registered = register(publisher, return_state=True)
    if not registered.is_completed():
        return Failed(message=registered.message)
    decided = decide(publisher, registered.result(), return_state=True)
    if not decided.is_completed():
        return Failed(message=decided.message)
    promoted = promote(publisher, decided.result(), return_state=True)
    if not promoted.is_completed():
        return Failed(message=promoted.message)
    decision = cast(DecisionRecord, promoted.result())
    artifacts.create(project, decision)
    failures = _follow_up(project, decision)
    if failures:
        return Failed(message=f"{decision.headline} Afterwards: {'; '.join(failures)}")
    return decision.to_json()


def _follow_up(project: Project, decision: DecisionRecord) -> list[str]:
    """Run every step after the decision; return the messages of those that failed."""
    watch = project.params.watch
    states = [push(project, return_state=True)]
    if watch.git_commit:
        states.append(commit(project, decision, return_state=True))
    if decision.verdict == "inconclusive":
        states.append(ask(project, decision, return_state=True))
    if watch.notify:
        states.append(notify(project, decision, watch.notify, return_state=True))
    return [state.message or str(state.name) for state in states if not state.is_completed()]
