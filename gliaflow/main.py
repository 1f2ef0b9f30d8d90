"""Entry point of the `gliaflow` command.

Exit codes: 0: done; a refusal to promote is a result, too. 1: an error, printed as one line.
2: wrong usage.
"""

import os
import sys
from pathlib import Path

from gliaflow import (
    cross_validation,
    doctor,
    gate_power,
    inbox,
    lineage,
    predict,
    recall,
    registry,
    run,
    stack,
    use,
)
from gliaflow.app import app
from pipeline import telemetry
from pipeline.adapters.storage import system_errors
from pipeline.errors import GliaflowError

COMMANDS = (
    use,
    run,
    registry,
    lineage,
    recall,
    predict,
    cross_validation,
    gate_power,
    inbox,
    stack,
    doctor,
)


def main() -> None:
    """Run the command that the arguments name."""
    telemetry.turn_off()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        with system_errors.explained(Path.cwd()):
            app()
    except GliaflowError as error:
        print(f"gliaflow: {error}", file=sys.stderr)
        sys.exit(1)
