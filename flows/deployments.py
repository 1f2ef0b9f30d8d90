"""Set up a Prefect server: the work pool, the deployments, and the rules for lost runs.

`python -m flows.deployments` applies them. Applying them again changes nothing.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from prefect import Flow
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    StateType,
)
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists

from flows.approve import approve
from flows.retrain import retrain
from flows.watch import watch
from pipeline.adapters.checkout.project import find_project
from pipeline.errors import GliaflowError

POOL = "gliaflow"
# Names of the rules on the server. They identify a rule: a renamed one is created beside the old.
DEAD_RUNS = "gliaflow: runs without a heartbeat have crashed"
ORPHANS = "gliaflow: runs whose worker died before they began are started again"
EVENT = "prefect.flow-run"
HEARTBEAT = f"{EVENT}.heartbeat"
# A suspended run has no process and sends no heartbeat.
ENDS = {
    f"{EVENT}.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "Suspended")
}
BEGUN = {f"{EVENT}.{state}" for state in ("Running", "AwaitingConcurrencySlot")}
# A flow sends a heartbeat every 30 s. The server may thus be down for a minute, and a dead run
# is detected within two.
SECONDS_WITHOUT_HEARTBEAT = 100
SECONDS_TO_BEGIN = 60
# What a worker runs is fixed here: no request can set its command, environment or folder. With
# Prefect's own template whoever creates a flow run chooses the command.
JOB_TEMPLATE: dict[str, Any] = {
    "job_configuration": {
        "command": None,
        "env": {},
        "labels": {},
        "name": None,
        # A flow that prints through its worker's pipe dies with the worker, at its next line.
        # The server stores the logs either way.
        "stream_output": False,
        "working_dir": None,
    },
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
DEPLOYMENT: dict[str, Any] = {
    "work_pool_name": POOL,
    "build": False,
    "push": False,
    "print_next_steps": False,
    "ignore_warnings": True,
}


def apply(root: Path) -> None:
    """Create or update everything on the server that `PREFECT_API_URL` names.

    Args:
        root: of the checkout that the flows work in.
    """
    _apply_pool()
    parameters = {"root": str(root)}
    _from_checkout(retrain, root, "flows/retrain.py:retrain").deploy(
        name="lgg",
        description="Run the changed stages, then register, decide and promote; one at a time.",
        parameters=parameters,
        concurrency_limit=_one_run(ConcurrencyLimitStrategy.ENQUEUE),
        **DEPLOYMENT,
    )
    poll_seconds = find_project(root).params.watch.poll_seconds
    _from_checkout(watch, root, "flows/watch.py:watch").deploy(
        name="inbox",
        description="Check the inbox; start retrain/lgg on new scans.",
        parameters=parameters,
        concurrency_limit=_one_run(ConcurrencyLimitStrategy.CANCEL_NEW),
        interval=timedelta(seconds=poll_seconds),
        **DEPLOYMENT,
    )
    _from_checkout(approve, root, "flows/approve.py:approve").deploy(
        name="champion",
        description="Wait for a person to decide on a version that the gate could not.",
        parameters=parameters,
        **DEPLOYMENT,
    )
    _apply_rule_for_dead_runs()
    _apply_rule_for_orphans()


def _apply_pool() -> None:
    """Create the work pool, or give an existing one the fixed job template."""
    pool = WorkPoolCreate(name=POOL, type="process", base_job_template=JOB_TEMPLATE)
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(pool)
        except ObjectAlreadyExists:
            client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=JOB_TEMPLATE))


def _from_checkout(flow: Flow[..., Any], root: Path, entrypoint: str) -> Flow[..., Any]:
    """Return a flow that workers load from the checkout."""
    # It is a coroutine only where it is called from async code.
    return cast(Flow[..., Any], flow.from_source(source=str(root), entrypoint=entrypoint))


def _one_run(strategy: ConcurrencyLimitStrategy) -> ConcurrencyLimitConfig:
    """Limit a deployment to one run at a time; `strategy` says what happens to the next one."""
    return ConcurrencyLimitConfig(limit=1, collision_strategy=strategy)


def _apply_rule_for_dead_runs() -> None:
    """Mark runs whose process stopped sending heartbeats as crashed; that frees their slot."""
    _apply_rule(
        DEAD_RUNS,
        after={HEARTBEAT},
        expect={HEARTBEAT, *ENDS},
        seconds=SECONDS_WITHOUT_HEARTBEAT,
        action=_set_state(
            StateType.CRASHED, "The process of this run sent no heartbeat; it has crashed."
        ),
    )


def _apply_rule_for_orphans() -> None:
    """Reschedule runs whose worker died before they began, for the next worker."""
    _apply_rule(
        ORPHANS,
        after={f"{EVENT}.Pending"},
        # The server loses an event while SQLite is locked. A heartbeat also shows that a run
        # has begun.
        expect={HEARTBEAT, *BEGUN, *ENDS},
        seconds=SECONDS_TO_BEGIN,
        action=_set_state(
            StateType.SCHEDULED, "The worker of this run died before it began; rescheduled."
        ),
    )


def _set_state(state: StateType, message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(name=None, state=state, message=message, force=False)


def _apply_rule(
    name: str, *, after: set[str], expect: set[str], seconds: int, action: ChangeFlowRunState
) -> None:
    """Apply `action` to runs that emit none of `expect` within `seconds`.

    Creates the rule, or updates it if it differs.

    Args:
        name: identifies the rule on the server.
        after: the events that the time is counted from.
    """
    trigger = EventTrigger(
        posture=Posture.Proactive,
        after=after,
        expect=expect,
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        threshold=1,
        within=timedelta(seconds=seconds),
    )
    try:
        # It is a coroutine only where it is called from async code.
        rule = cast(Automation, Automation.read(name=name))
    except ValueError:
        Automation(name=name, trigger=trigger, actions=[action]).create()
        return
    # Every update, even without changes, makes the server forget the runs it was waiting for.
    if _comparable(rule.trigger) != _comparable(trigger) or rule.actions != [action]:
        rule.trigger, rule.actions = trigger, [action]
        rule.update()


def _comparable(trigger: object) -> dict[str, Any]:
    """Return a trigger's fields without those that the server adds."""
    assert isinstance(trigger, EventTrigger)
    return trigger.model_dump(include={"after", "expect", "match", "for_each", "within", "posture"})


if __name__ == "__main__":
    try:
        apply(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    except GliaflowError as error:
        print(f"gliaflow: {error}", file=sys.stderr)
        sys.exit(1)
