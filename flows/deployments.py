"""What a Prefect server must know: the pool, the deployments, the rules for lost runs.

`python -m flows.deployments` applies it; applied again it changes nothing.
"""

import sys
from datetime import timedelta
from pathlib import Path

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    StateType,
)
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists

from flows.retrain import retrain
from flows.watch import watch
from pipeline.adapters import project
from pipeline.errors import GliaflowError

POOL = "gliaflow"
DEAD_RUNS = "gliaflow: runs without a heartbeat have crashed"
ORPHANS = "gliaflow: runs whose worker died before they began are started again"
EVENT = "prefect.flow-run"
HEARTBEAT = f"{EVENT}.heartbeat"
ENDS = {f"{EVENT}.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
BEGUN = ("Running", "AwaitingConcurrencySlot")
# A flow beats every 30 s. So a server may be away for a minute, and a dead run is known in two.
SECONDS_WITHOUT_BEAT = 100
SECONDS_TO_BEGIN = 60
# A flow that prints through its worker's pipe ends with the worker, at its next line. The
# lines are kept on the server either way.
JOB = {"stream_output": False}


def apply(root: Path) -> None:
    """Make or bring up to date everything on the server that PREFECT_API_URL names."""
    _pool()
    poll = project.find(root).params().watch.poll_seconds
    one = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    skip = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    parameters = {"root": str(root)}
    retrain.from_source(source=str(root), entrypoint="flows/retrain.py:retrain").deploy(
        name="lgg", work_pool_name=POOL, parameters=parameters, concurrency_limit=one,
        job_variables=JOB, build=False, push=False, print_next_steps=False, ignore_warnings=True,
        description="Build what changed, register, judge, promote; one at a time.",
    )  # fmt: skip
    watch.from_source(source=str(root), entrypoint="flows/watch.py:watch").deploy(
        name="inbox", work_pool_name=POOL, parameters=parameters, concurrency_limit=skip,
        interval=timedelta(seconds=poll), job_variables=JOB, build=False, push=False,
        print_next_steps=False, ignore_warnings=True,
        description="Look into the inbox; start retrain/lgg on new scans.",
    )  # fmt: skip
    _dead_runs()
    _orphans()


def _pool() -> None:
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        except ObjectAlreadyExists:
            return


def _dead_runs() -> None:
    """Runs whose process stopped beating are marked crashed, so that they free their place."""
    _rule(
        DEAD_RUNS,
        after={HEARTBEAT},
        expect={HEARTBEAT, *ENDS},
        seconds=SECONDS_WITHOUT_BEAT,
        action=ChangeFlowRunState(
            state=StateType.CRASHED, message="Its process stopped answering; it has crashed."
        ),
    )


def _orphans() -> None:
    """Runs whose worker died before they began are given to the next worker."""
    _rule(
        ORPHANS,
        after={f"{EVENT}.Pending"},
        # The server loses an event where SQLite is locked: a run that beats has begun as well.
        expect={HEARTBEAT, *(f"{EVENT}.{name}" for name in BEGUN), *ENDS},
        seconds=SECONDS_TO_BEGIN,
        action=ChangeFlowRunState(
            state=StateType.SCHEDULED, message="Its worker went away before it began; once more."
        ),
    )


def _rule(
    name: str, *, after: set[str], expect: set[str], seconds: int, action: ChangeFlowRunState
) -> None:
    """Act on a run of which nothing expected is heard for a while; made once, then kept in date."""
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
        found = Automation.read(name=name)
    except ValueError:
        Automation(name=name, trigger=trigger, actions=[action]).create()
        return
    # Whatever the rule was waiting for is forgotten with an update, changed or not.
    if _meaning(found.trigger) != _meaning(trigger) or found.actions != [action]:
        found.trigger, found.actions = trigger, [action]
        found.update()


def _meaning(trigger: object) -> dict[str, object]:
    """A trigger without what the server adds to it."""
    assert isinstance(trigger, EventTrigger)
    return trigger.model_dump(include={"after", "expect", "match", "for_each", "within", "posture"})


if __name__ == "__main__":
    try:
        apply(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    except GliaflowError as error:
        print(f"gliaflow: {error}", file=sys.stderr)
        sys.exit(1)
