import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from making import REPOSITORY

from pipeline.adapters import locks

HOLD = """
import sys
from pathlib import Path
from pipeline.adapters import locks
with locks.alone(Path(sys.argv[1]), what=sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts processes that want the lock, and hold it until their standard input closes."""
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


def test_a_waiting_process_says_for_whom_and_goes_on_when_that_one_is_killed(holder):
    first = holder()
    assert line(first) == "held"
    second = holder("the scans are being read")
    assert line(second) == f"the scans are being read (process {first.pid}); waiting"
    first.kill()  # SIGKILL: it can free nothing by itself
    assert line(second) == "held"


def test_a_process_that_ends_well_frees_the_lock(holder):
    first = holder()
    assert line(first) == "held"
    first.communicate("")
    second = holder("the scans are being read")
    assert line(second) == "held"


def test_the_third_in_line_is_told_of_the_second_not_of_the_first(holder):
    first = holder()
    assert line(first) == "held"
    first.kill()
    first.wait()
    second = holder()
    assert line(second) == "held"
    assert line(holder("a lock")) == f"a lock (process {second.pid}); waiting"


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(RuntimeError), locks.alone(tmp_path / "lock"):
        raise RuntimeError
    with locks.alone(tmp_path / "lock"):
        pass


def test_the_lock_makes_its_folder(tmp_path):
    path: Path = tmp_path / "new" / "folder" / "lock"
    with locks.alone(path):
        assert path.exists()
