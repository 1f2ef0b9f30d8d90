import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from making import REPOSITORY

from pipeline.adapters.process import parent_watch, processes

PARENT = "import sys; sys.stdin.read()"
STAGE = """
import sys
from pipeline.adapters.process import parent_watch, processes
is_running, checks = processes.is_running, []
def count_and_check(identity):
    checks.append(identity)
    if len(checks) == 3:
        print("checked three times", flush=True)
    return is_running(identity)
processes.is_running = count_and_check
parent_watch.SECONDS_BETWEEN_CHECKS = 0.01
parent_watch.end_with_parent()
print("started", flush=True)
sys.stdin.read()
print("done", flush=True)
"""
SECONDS_TO_END = 60

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python programs that watch `parent`, or none."""
    started: list[subprocess.Popen[str]] = []

    def begin(program: str, *, parent: str | None = None) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if name != parent_watch.VARIABLE}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True,
            cwd=REPOSITORY, env=env | ({parent_watch.VARIABLE: parent} if parent else {}),
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_stage_ends_when_its_parent_is_killed(start):
    parent = start(PARENT)
    stage = start(STAGE, parent=processes.process_identity(parent.pid))
    assert [line(stage), line(stage)] == ["started", "checked three times"]
    parent.kill()  # not waited for yet: a zombie counts as gone
    assert stage.wait(SECONDS_TO_END) == 1
    assert "the flow that started this stage is gone" in stage.stderr.read()


def test_a_stage_ends_whose_parent_was_gone_before_it_started(start):
    parent = start(PARENT)
    identity = processes.process_identity(parent.pid)
    parent.kill()
    parent.wait()
    assert start(STAGE, parent=identity).wait(SECONDS_TO_END) == 1


def test_a_process_with_the_reused_id_of_the_parent_is_not_the_parent(start):
    other = start(PARENT)
    assert start(STAGE, parent=f"{other.pid}:1").wait(SECONDS_TO_END) == 1


def test_a_stage_whose_parent_runs_completes(start):
    parent = start(PARENT)
    stage = start(STAGE, parent=processes.process_identity(parent.pid))
    assert [line(stage), line(stage)] == ["started", "checked three times"]
    output, _ = stage.communicate("")
    assert (output.strip(), stage.returncode) == ("done", 0)


def test_a_stage_without_a_parent_in_the_environment_watches_none(start):
    stage = start(STAGE)
    output, _ = stage.communicate("")
    assert (output.split(), stage.returncode) == (["started", "done"], 0)
