"""Folders for the tests of sources."""

from pathlib import Path

import pytest


@pytest.fixture
def raw(tmp_path) -> Path:
    """A folder, not there yet, that a source is copied to."""
    return tmp_path / "raw"
