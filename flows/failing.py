"""A failure that a person can mend, as a Prefect state instead of a traceback."""

from prefect import State, get_run_logger
from prefect.states import Failed

from pipeline.errors import GliaflowError


def failed(error: GliaflowError) -> State:
    """A failed state that says the sentence; returned, not raised, so that no traceback is shown."""
    get_run_logger().error(str(error))
    return Failed(message=str(error))
