"""Entry point of the `gliaflow` command.

Exit codes: 0: done; a refusal to promote is a result, too. 1: an error, printed as one line.
2: wrong usage.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from gliaflow import cross_validation, doctor, inbox, predict, registry, run, stack, use
from gliaflow.app import app
from pipeline import telemetry
from pipeline.errors import GliaflowError

COMMANDS = (use, run, registry, predict, cross_validation, inbox, stack, doctor)


def main() -> None:
    """Run the command that the arguments name."""
    telemetry.turn_off()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        app()
    except GliaflowError as error:
        _fail(str(error))
    except Exception as error:
        from pipeline.adapters.storage import system_errors

        sentence = system_errors.explain(error, Path.cwd())
        if sentence is None:
            raise
        _fail(sentence)


def _fail(sentence: str) -> NoReturn:
    print(f"gliaflow: {sentence}", file=sys.stderr)
    sys.exit(1)
