"""Errors that a user can fix become failed states; all others are raised."""

import logging
from collections.abc import Iterator

import pytest
from prefect import State
from prefect.exceptions import FailedRun
from prefect.logging import disable_run_logger

from flows.states import failed_on_error
from pipeline.errors import GliaflowError


@pytest.fixture(autouse=True)
def no_run_logger() -> Iterator[None]:
    with disable_run_logger():
        yield


@failed_on_error
def add(a: int, *, b: int = 1) -> int:
    """Add two numbers."""
    if a < 0:
        raise GliaflowError("a is negative; expected 0 or more")
    if a > 99:
        raise ValueError("too large")
    return a + b


def test_a_result_passes_through():
    assert add(1) == 2
    assert add(1, b=4) == 5


def test_an_error_for_users_becomes_a_failed_state_with_its_message():
    state = add(-1)
    assert isinstance(state, State)
    assert state.is_failed()
    assert state.message == "a is negative; expected 0 or more"


def test_other_exceptions_are_raised():
    with pytest.raises(ValueError, match="too large"):
        add(100)


def test_name_and_docstring_are_those_of_the_function():
    assert (add.__name__, add.__doc__) == ("add", "Add two numbers.")


def test_the_worker_logs_no_traceback_of_a_failed_state():
    add(-1)
    logger = logging.getLogger("prefect.flow_runs")

    def record(error: Exception | None) -> logging.LogRecord:
        exc_info = (type(error), error, None) if error else None
        return logger.makeRecord(logger.name, logging.ERROR, "", 1, "it failed", (), exc_info)

    assert not logger.filter(record(FailedRun("a is negative")))
    assert logger.filter(record(ValueError("a bug")))
    assert logger.filter(record(None))
