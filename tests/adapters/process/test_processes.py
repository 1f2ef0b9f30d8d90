import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from pipeline.adapters.process import processes

WAIT = "import sys; sys.stdin.read()"
IGNORE_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(300)
"""
END_POLITELY = """
import signal, sys, time
def end(*_):
    print("ended politely", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(300)
"""
# Starts a child in its group, and ends at SIGTERM itself.
START_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(300)
"""
GRACE_SECONDS = 10

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python programs, each as the leader of a process group."""
    started: list[subprocess.Popen[str]] = []

    def begin(program: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# process_identity and is_running


def test_a_running_process_keeps_its_identity(start):
    process = start(WAIT)
    identity = processes.process_identity(process.pid)
    assert identity.startswith(f"{process.pid}:")
    assert processes.process_identity(process.pid) == identity
    assert processes.process_identity(os.getpid()) != identity
    assert processes.is_running(identity)


def test_a_dead_process_has_no_identity_before_and_after_it_is_waited_for(start):
    process = start(WAIT)
    identity = processes.process_identity(process.pid)
    process.kill()
    process.stdout.read()  # until its end of the pipe is closed
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert processes.process_identity(process.pid) is None
    assert not processes.is_running(identity)
    process.wait()
    assert processes.process_identity(process.pid) is None
    assert not processes.is_running(identity)


@pytest.mark.parametrize("name", [b") Z 1 (", b"caf\xe9"])
def test_a_process_name_of_any_bytes_does_not_confuse_the_identity(start, name):
    process = start(
        f"import ctypes; ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0)\n"
        'print("named", flush=True)\n' + WAIT
    )
    assert line(process) == "named"
    assert processes.process_identity(process.pid).startswith(f"{process.pid}:")


def test_a_process_with_another_start_time_is_another_process():
    assert not processes.is_running(f"{os.getpid()}:1")


@pytest.mark.parametrize(
    "identity",
    [
        "",
        ":",
        "abc:1",
        "None",
        f"{os.getpid()}",
        f"{os.getpid()}:",
        "²:1",
        "0:1",
        "-1:1",
        "7" * 5000,
    ],
)
def test_text_that_is_no_identity_is_no_running_process(identity):
    assert not processes.is_running(identity)


# end_group


def test_a_group_gets_the_chance_to_end_by_itself(start):
    process = start(END_POLITELY)
    assert line(process) == "ready"
    processes.end_group(process.pid, grace_seconds=GRACE_SECONDS)
    assert processes.process_identity(process.pid) is None
    assert process.communicate()[0] == "ended politely\n"
    assert process.returncode == 0


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace_period(start):
    process = start(IGNORE_SIGTERM)
    assert line(process) == "ready"
    began = time.monotonic()
    processes.end_group(process.pid, grace_seconds=0.5)
    assert time.monotonic() - began >= 0.5
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("child_program", "grace_seconds"), [(END_POLITELY, GRACE_SECONDS), (IGNORE_SIGTERM, 0.5)]
)
def test_children_end_with_the_leader(start, child_program, grace_seconds):
    leader = start(START_CHILD, child_program)
    child = int(line(leader))
    processes.end_group(leader.pid, grace_seconds=grace_seconds)
    assert processes.process_identity(leader.pid) is None
    assert processes.process_identity(child) is None


def test_children_end_whose_leader_is_gone(start):
    leader = start(START_CHILD, END_POLITELY)
    child = int(line(leader))
    leader.kill()
    leader.wait()
    assert processes.process_identity(child)
    processes.end_group(leader.pid, grace_seconds=GRACE_SECONDS)
    assert processes.process_identity(child) is None


def test_a_group_that_is_gone_is_no_error(start):
    process = start("")
    process.wait()
    processes.end_group(process.pid, grace_seconds=GRACE_SECONDS)


def test_other_groups_are_left_alone(start):
    process, other = start(END_POLITELY), start(END_POLITELY)
    assert (line(process), line(other)) == ("ready", "ready")
    processes.end_group(process.pid, grace_seconds=GRACE_SECONDS)
    assert processes.process_identity(other.pid)


def start_marked(tmp_path, code: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    environment = {**os.environ, "GLIAFLOW_TEST": str(tmp_path)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment)


def test_processes_with_a_variable_are_found_with_their_children_and_no_others(tmp_path):
    spawn = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    parent = start_marked(tmp_path, spawn)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        deadline = time.monotonic() + 20
        while len(processes.with_variable("GLIAFLOW_TEST", str(tmp_path))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        marked = processes.with_variable("GLIAFLOW_TEST", str(tmp_path))
        assert parent.pid in marked and other.pid not in marked
        parent.kill()
        parent.wait()
        (orphan,) = processes.with_variable("GLIAFLOW_TEST", str(tmp_path))
        processes.end_all([orphan], grace_seconds=5)
        assert processes.with_variable("GLIAFLOW_TEST", str(tmp_path)) == []
        assert processes.process_identity(other.pid)
    finally:
        other.kill()
        other.wait()


def test_a_variable_of_another_value_or_of_a_process_that_is_gone_does_not_count(tmp_path):
    process = start_marked(tmp_path)
    try:
        processes.await_environment(process.pid)
        assert processes.has_variable(process.pid, name="GLIAFLOW_TEST", value=str(tmp_path))
        assert not processes.has_variable(process.pid, name="GLIAFLOW_TEST", value="elsewhere")
    finally:
        process.kill()
        process.wait()
    assert not processes.has_variable(process.pid, name="GLIAFLOW_TEST", value=str(tmp_path))


def test_nothing_is_awaited_of_a_process_that_has_ended():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    processes.await_environment(done.pid, seconds=60)


def test_a_process_that_ignores_sigterm_is_killed(tmp_path):
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    processes.end_all([process.pid], grace_seconds=0.3)
    assert process.wait(timeout=5) == -signal.SIGKILL
    process.stdout.close()


def test_ending_nothing_or_what_is_gone_is_no_error():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    processes.end_all([], grace_seconds=0.1)
    processes.end_all([done.pid], grace_seconds=0.1)
