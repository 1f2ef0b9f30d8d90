"""`gliaflow up` and `gliaflow down`: Prefect, MLflow and the watched inbox on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliaflow.app import app, say

if TYPE_CHECKING:
    from pipeline.app.local_stack import LocalStack

PrefectPort = Annotated[
    int, typer.Option(help="Port of the Prefect server.", envvar="PREFECT_PORT", min=1, max=65535)
]
MlflowPort = Annotated[
    int, typer.Option(help="Port of MLflow.", envvar="MLFLOW_PORT", min=1, max=65535)
]


@app.command(epilog="Example: gliaflow up --prefect-port 4300")
def up(prefect_port: PrefectPort = 4200, mlflow_port: MlflowPort = 5000) -> None:
    """Start Prefect, MLflow and the watched inbox on this machine."""
    _stack(prefect_port, mlflow_port).up()


@app.command(epilog="Example: gliaflow down")
def down(prefect_port: PrefectPort = 4200, mlflow_port: MlflowPort = 5000) -> None:
    """End exactly what `gliaflow up` started."""
    ended = _stack(prefect_port, mlflow_port).down()
    typer.echo(f"ended: {', '.join(ended)}" if ended else "nothing was running")


def _stack(prefect_port: int, mlflow_port: int) -> "LocalStack":
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app.local_stack import LocalStack

    project = find_project(Path.cwd())
    return LocalStack(project, prefect_port=prefect_port, mlflow_port=mlflow_port, say=say)
