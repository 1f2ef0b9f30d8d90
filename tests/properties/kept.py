"""Inputs that once broke a property, as files in `kept/<property>/`: replayed in every run.

A new failure is written there by the run that finds it. Commit the file with the fix.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "kept"

# What this run wrote, by property and place of the error: a smaller input replaces a larger one.
_written: dict[tuple[str, str, str], Path] = {}


def replay(name: str) -> pytest.MarkDecorator:
    """Return a mark that gives every kept input of a property to the argument `content`."""
    paths = sorted((FOLDER / name).glob("*"))
    return pytest.mark.parametrize(
        "content", [pytest.param(path.read_bytes(), id=path.name) for path in paths]
    )


@contextmanager
def failing(name: str, content: bytes) -> Iterator[None]:
    """Keep an input as a file if the block raises."""
    try:
        yield
    except Exception as error:
        _keep(name, content, error)
        raise


def _keep(name: str, content: bytes, error: Exception) -> None:
    path = FOLDER / name / hashlib.sha256(content).hexdigest()[:16]
    if path.exists():
        return
    key = (name, type(error).__name__, _place(error))
    if key in _written:
        _written[key].unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    _written[key] = path


def _place(error: Exception) -> str:
    """Return the file and line that raised."""
    traceback = error.__traceback__
    assert traceback is not None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
