import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from making import REPOSITORY

from pipeline.adapters.process import locks

HOLD = """
import sys
from pathlib import Path
from pipeline.adapters.process import locks
with locks.hold(Path(sys.argv[1]), what=sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start processes that take the lock and hold it until their standard input closes."""
    started: list[subprocess.Popen[str]] = []

    def start(what: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(tmp_path / "lock"), what]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=REPOSITORY)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


def test_a_waiting_process_names_the_holder_and_takes_the_lock_when_that_is_killed(holder):
    first = holder()
    assert line(first) == "held"
    second = holder("the scans are being read")
    assert line(second) == f"the scans are being read (process {first.pid}); waiting"
    first.kill()  # SIGKILL: it cannot release anything itself
    assert line(second) == "held"


def test_a_process_that_ends_normally_releases_the_lock(holder):
    first = holder()
    assert line(first) == "held"
    first.communicate("")
    second = holder("the scans are being read")
    assert line(second) == "held"


def test_a_waiting_process_names_the_current_holder_not_an_earlier_one(holder):
    first = holder()
    assert line(first) == "held"
    first.kill()
    first.wait()
    second = holder()
    assert line(second) == "held"
    assert line(holder("a lock")) == f"a lock (process {second.pid}); waiting"


def test_an_error_inside_releases_the_lock(tmp_path):
    with pytest.raises(RuntimeError), locks.hold(tmp_path / "lock"):
        raise RuntimeError
    with locks.hold(tmp_path / "lock"):
        pass


def test_the_folder_of_a_lock_is_created(tmp_path):
    path: Path = tmp_path / "new" / "folder" / "lock"
    with locks.hold(path):
        assert path.exists()
