"""Usage reports of every tool that gliaflow stands on: off, from this one place.

`make` writes a start-up line into the environment (`.pth`), so that each Python
program of it (dvc, prefect, mlflow ...) sees these values; the command line and the
stages call `turn_off` as well, for environments that were made in another way.
"""

import os

SILENT = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def turn_off() -> None:
    """Switch reporting off, except where the user has set a variable already."""
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)


def startup_line() -> str:
    """A line for a `.pth` file: does what `turn_off` does, without importing this project."""
    return f"import os; [os.environ.setdefault(*one) for one in {SILENT}.items()]"
