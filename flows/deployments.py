"""What a Prefect server must know: the pool, the deployments, the rule for dead runs.

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
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def apply(root: Path) -> None:
    """Make or bring up to date everything on the server that PREFECT_API_URL names."""
    _pool()
    poll = project.find(root).params().watch.poll_seconds
    one = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    skip = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    parameters = {"root": str(root)}
    retrain.from_source(source=str(root), entrypoint="flows/retrain.py:retrain").deploy(
        name="lgg", work_pool_name=POOL, parameters=parameters, concurrency_limit=one,
        build=False, push=False, print_next_steps=False, ignore_warnings=True,
        description="Build what changed, register, judge, promote; one at a time.",
    )  # fmt: skip
    watch.from_source(source=str(root), entrypoint="flows/watch.py:watch").deploy(
        name="inbox", work_pool_name=POOL, parameters=parameters, concurrency_limit=skip,
        interval=timedelta(seconds=poll), build=False, push=False, print_next_steps=False,
        ignore_warnings=True, description="Look into the inbox; start retrain/lgg on new scans.",
    )  # fmt: skip
    _dead_runs()


def _pool() -> None:
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        except ObjectAlreadyExists:
            return


def _dead_runs() -> None:
    """Runs whose process stopped beating are marked crashed, so that they free their place."""
    trigger = EventTrigger(
        posture=Posture.Proactive,
        after={HEARTBEAT},
        expect={HEARTBEAT, *(f"prefect.flow-run.{end}" for end in ENDS)},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        threshold=1,
        within=timedelta(seconds=75),
    )
    action = ChangeFlowRunState(
        state=StateType.CRASHED, message="Its process stopped answering; it has crashed."
    )
    wanted = Automation(name=DEAD_RUNS, trigger=trigger, actions=[action])
    try:
        found = Automation.read(name=DEAD_RUNS)
    except ValueError:
        wanted.create()
        return
    found.trigger, found.actions = wanted.trigger, wanted.actions
    found.update()


if __name__ == "__main__":
    try:
        apply(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    except GliaflowError as error:
        print(f"gliaflow: {error}", file=sys.stderr)
        sys.exit(1)
