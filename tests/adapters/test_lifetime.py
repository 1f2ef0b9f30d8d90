import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from making import REPOSITORY

from pipeline.adapters import lifetime

FLOW = "import sys; sys.stdin.read()"
STAGE = """
import sys
from pipeline.adapters import lifetime
identity, looks = lifetime.identity, []
def look(pid):
    looks.append(pid)
    if len(looks) == 3:
        print("looked three times", flush=True)
    return identity(pid)
lifetime.identity = look
lifetime.SECONDS_BETWEEN_LOOKS = 0.01
lifetime.end_with_flow()
print("started", flush=True)
sys.stdin.read()
print("done", flush=True)
"""
SECONDS_TO_END = 60

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python programs with GLIAFLOW_FLOW as given, or without it."""
    started: list[subprocess.Popen[str]] = []

    def begin(program: str, *, flow: str | None = None) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if name != lifetime.VARIABLE}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True,
            cwd=REPOSITORY, env=kept | ({lifetime.VARIABLE: flow} if flow else {}),
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


def test_a_stage_ends_by_itself_when_its_flow_is_killed(start):
    flow = start(FLOW)
    stage = start(STAGE, flow=lifetime.identity(flow.pid))
    assert [line(stage), line(stage)] == ["started", "looked three times"]
    flow.kill()  # not yet waited for: a zombie counts as gone
    assert stage.wait(SECONDS_TO_END) == 1
    assert "the flow that started this stage is gone" in stage.stderr.read()


def test_a_stage_whose_flow_was_gone_before_it_ends_too(start):
    flow = start(FLOW)
    named = lifetime.identity(flow.pid)
    flow.kill()
    flow.wait()
    assert start(STAGE, flow=named).wait(SECONDS_TO_END) == 1


def test_a_process_that_got_the_id_of_the_flow_is_not_taken_for_it(start):
    other = start(FLOW)
    assert start(STAGE, flow=f"{other.pid}:1").wait(SECONDS_TO_END) == 1


def test_a_stage_whose_flow_lives_goes_on_to_its_end(start):
    flow = start(FLOW)
    stage = start(STAGE, flow=lifetime.identity(flow.pid))
    assert [line(stage), line(stage)] == ["started", "looked three times"]
    said, _ = stage.communicate("")
    assert (said.strip(), stage.returncode) == ("done", 0)


def test_a_stage_that_no_flow_started_looks_after_none(start):
    stage = start(STAGE)
    said, _ = stage.communicate("")
    assert (said.split(), stage.returncode) == (["started", "done"], 0)


def test_a_living_process_keeps_its_identity(start):
    flow = start(FLOW)
    found = lifetime.identity(flow.pid)
    assert found.startswith(f"{flow.pid}:")
    assert lifetime.identity(flow.pid) == found
    assert lifetime.identity(os.getpid()) != found


def test_a_dead_process_has_no_identity_before_and_after_it_was_waited_for(start):
    flow = start(FLOW)
    flow.kill()
    flow.stdout.read()  # until its end of the pipe is closed
    os.waitid(os.P_PID, flow.pid, os.WEXITED | os.WNOWAIT)
    assert lifetime.identity(flow.pid) is None
    flow.wait()
    assert lifetime.identity(flow.pid) is None


def test_a_name_with_spaces_and_brackets_does_not_confuse_the_identity(start):
    named = start(
        "import ctypes; ctypes.CDLL(None).prctl(15, b') Z 1 (', 0, 0, 0)\n"
        + 'print("named", flush=True)\n'
        + FLOW
    )
    assert line(named) == "named"
    assert lifetime.identity(named.pid).startswith(f"{named.pid}:")
