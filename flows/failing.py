"""A failure that a person can mend, as a Prefect state instead of a traceback."""

import logging

from prefect import State, get_run_logger
from prefect.exceptions import FailedRun
from prefect.states import Failed

from pipeline.errors import GliaflowError


def failed(error: GliaflowError) -> State:
    """A failed state that says the sentence; returned, not raised, so that no traceback is shown."""
    logging.getLogger("prefect.flow_runs").addFilter(_said_already)
    get_run_logger().error(str(error))
    return Failed(message=str(error))


def _said_already(record: logging.LogRecord) -> bool:
    """On a worker Prefect raises a failed state once more, and logs where it did so."""
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))
