"""`gliaflow run`: a whole retraining in this process."""

from pathlib import Path
from typing import Any, cast

import typer

from gliaflow import printing
from gliaflow.app import app
from pipeline.errors import GliaflowError


@app.command(epilog="Example: gliaflow run")
def run() -> None:
    """Build what changed, then register, decide and promote."""
    from pipeline.adapters.checkout import dvc_lock
    from pipeline.adapters.checkout.project import find_project
    from pipeline.adapters.storage import system_errors
    from pipeline.domain.decisions import DecisionRecord

    project = find_project(Path.cwd())
    system_errors.check_free(project.root, dvc_lock.MIN_FREE, what="gliaflow run")
    from flows import temporary_server
    from flows.retrain import retrain

    temporary_server.use()
    state = retrain(str(project.root), return_state=True)
    if not state.is_completed():
        raise GliaflowError(state.message or f"the run ended as {state.name}")
    typer.echo("")
    decision = cast(dict[str, Any], state.result())
    printing.print_decision(DecisionRecord.from_json(decision))
    typer.echo(f"Open {project.path('index').relative_to(project.root)} in a browser.")
