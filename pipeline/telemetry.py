"""Turn off the usage reports of all tools that gliaflow is built on.

`make` writes `startup_line` into a `.pth` file of the environment, so that it applies to every
Python program there (dvc, prefect, mlflow ...). The command line and the stages also call
`turn_off`, for environments that were created in another way.
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
    """Set the variables that turn reporting off, except those the user has already set."""
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)


def startup_line() -> str:
    """Return a line for a `.pth` file that does the same without importing this project."""
    return f"import os; [os.environ.setdefault(*item) for item in {SILENT}.items()]"
