"""Failures that a user can fix, as Prefect states with a message instead of a traceback."""

import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from prefect import State, get_run_logger
from prefect.exceptions import FailedRun
from prefect.states import Failed

from pipeline.adapters.storage import system_errors
from pipeline.errors import GliaflowError

P = ParamSpec("P")
R = TypeVar("R")


def failed_on_error(function: Callable[P, R]) -> Callable[P, R | State]:
    """Make a flow or task return a failed state on an error that a person can fix.

    That is a `GliaflowError`, or an error of the system such as a full disk. The state's
    message is the error's. It is returned, not raised: Prefect would log a traceback.
    """

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R | State:
        try:
            with system_errors.explained(Path.cwd()):
                return function(*args, **kwargs)
        except GliaflowError as error:
            logging.getLogger("prefect.flow_runs").addFilter(_is_new)
            get_run_logger().error(str(error))
            return Failed(message=str(error))

    return wrapped


def _is_new(record: logging.LogRecord) -> bool:
    """Drop the traceback that a worker logs when it raises the failed state once more."""
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))
