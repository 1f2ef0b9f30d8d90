"""The flow `approve`: wait for a person to decide on a version that the gate could not.

It is suspended while it waits: no process, worker slot or lock is held. The person answers in
Prefect's UI ("Resume", with a name and a reason), or by `gliaflow promote VERSION --by NAME`.
"""

from pathlib import Path
from typing import Any, cast

from prefect import State, flow, get_run_logger, runtime
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.states import failed_on_error
from pipeline.adapters.checkout.project import Project, find_project
from pipeline.app.promotion import open_publisher
from pipeline.domain.decisions import DecisionRecord

APPROVE = "approve/champion"


class Approval(RunInput):
    """What a person answers."""

    promote: bool = Field(description="Put the version into use?")
    name: str = Field(min_length=1, description="Who answers for it.")
    reason: str = Field(min_length=1, description="Why; recorded for good.")


@flow(name="approve", validate_parameters=False)
@failed_on_error
def approve(version: int, root: str = ".") -> dict[str, Any] | State:
    """Ask a person about a version, and do as they say.

    Args:
        version: its number. root: folder of the checkout.

    Returns:
        The decision, as in reports/decision.json.
    """
    project = find_project(Path(root))
    seconds = int(project.params.gate.approval_hours * 3600)
    answer = suspend_flow_run(wait_for_input=Approval, timeout=seconds)
    publisher = open_publisher(project)
    decided = publisher.approve if answer.promote else publisher.refuse
    decision = decided(version, by=answer.name, why=answer.reason)
    get_run_logger().info(decision.headline)
    return decision.to_json()


def ask(project: Project, decision: DecisionRecord) -> str:
    """Start the flow for an inconclusive decision, once; return what was done, as a sentence.

    Without a server that lasts, as in `gliaflow run`, there is nobody to ask.
    """
    version = decision.candidate.version
    command = f"`gliaflow promote {version} --by NAME` approves it"
    if not runtime.deployment.id:
        return command
    run = run_deployment(
        APPROVE,
        parameters={"root": str(project.root), "version": version},
        idempotency_key=f"{project.params.register_.model}-{decision.number}",
        timeout=0,
        as_subflow=False,
    )
    name = cast(FlowRun, run).name  # a coroutine only where it is called from async code
    return f"the flow run {name} waits for a person; {command}"
