"""The flow `retrain`: the stages of dvc.yaml one after another, then register, decide, promote.

Knows Prefect, and nothing of what a stage does: the graph is read from dvc.yaml.
"""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from flows import publish, stages
from flows.wording import decision_text, metrics_rows
from pipeline.adapters import files, project
from pipeline.adapters.project import Project
from pipeline.adapters.registry import Version


@task(task_run_name="{stage}")
def run_stage(root: Path, stage: str) -> None:
    """One stage through DVC, its lines as this task's logs."""
    logger = get_run_logger()
    stages.repro(root, stage, say=logger.info)


@task
def register(own: Project) -> Version:
    version = publish.register(own)
    get_run_logger().info("version %s, digest %s", version.version, version.digest[:12])
    return version


@task
def decide(own: Project, version: Version) -> dict[str, Any]:
    decision = publish.decide(own, version)
    for reason in decision["reasons"]:
        get_run_logger().info(reason["sentence"])
    return decision


@task
def promote(own: Project, decision: dict[str, Any]) -> dict[str, Any]:
    return publish.promote(own, decision)


@flow(name="retrain", flow_run_name="retrain", validate_parameters=False)
def retrain(root: str = ".") -> dict[str, Any]:
    """Bring the model up to date and judge it.

    Args:
        root: folder of the checkout to work in.

    Returns:
        The decision, as in reports/decision.json.
    """
    own = project.find(Path(root))
    own.params()  # a wrong value is told now, not after an hour
    for stage in own.order():
        run_stage(own.root, stage)
    version = register(own)
    decision = promote(own, decide(own, version))
    _artifacts(own, decision)
    return decision


def _artifacts(own: Project, decision: dict[str, Any]) -> None:
    """What people look at first on the run's page: scores, decision, and the way to the report."""
    scores = files.read_json(own.path("scores"))
    create_table_artifact(key="metrics", table=metrics_rows(scores), description="Scores")
    create_markdown_artifact(key="decision", markdown=decision_text(decision))
    create_link_artifact(
        key="report", link=own.path("index").resolve().as_uri(), link_text="the report"
    )
