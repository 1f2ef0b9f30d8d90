"""Identify and end processes on this machine."""

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

SECONDS_BETWEEN_CHECKS = 0.1
SECONDS_BETWEEN_LOOKS = 0.01
PROCESS_ID = re.compile(r"[1-9][0-9]{0,9}")


def process_identity(pid: int) -> str | None:
    """Return `pid:start time` of a running process.

    Process ids are reused; the start time tells two processes with the same id apart.

    Returns:
        None if there is no such process, or it is a zombie.
    """
    fields = _status(pid)
    return f"{pid}:{fields[19]}" if fields else None


def is_running(identity: str) -> bool:
    """Whether the process that `process_identity` described still runs."""
    pid, _, start = identity.partition(":")
    if not PROCESS_ID.fullmatch(pid):
        return False
    return bool(start) and process_identity(int(pid)) == identity


def end_group(pid: int, *, grace_seconds: float) -> None:
    """End the process group that `pid` leads: SIGTERM first, SIGKILL after a grace period.

    Returns once no process of the group runs. A group that already ended is not an error.

    Args:
        grace_seconds: longest time to wait after each signal.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + grace_seconds
        while time.monotonic() < deadline:
            if not _group_is_running(pid):
                return
            time.sleep(SECONDS_BETWEEN_CHECKS)


def _group_is_running(group: int) -> bool:
    """Whether any process of a group runs, also after its leader ended."""
    pids = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return any(fields[2] == str(group) for pid in pids if (fields := _status(pid)))


def _status(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, process group ...

    Returns:
        Empty if there is no such process, or it is a zombie.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    fields = text.rpartition(")")[2].split()  # the name may contain blanks and brackets
    return [] if fields[0] in "ZX" else fields


def with_variable(name: str, value: str) -> list[int]:
    """Return the running processes of this user whose environment has a variable of this value.

    Children inherit it: the result holds what a marked process has started, too. This process
    is left out.
    """
    pids = (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))
    return sorted(
        pid for pid in pids if pid != os.getpid() and has_variable(pid, name=name, value=value)
    )


def has_variable(pid: int, *, name: str, value: str) -> bool:
    """Whether a process runs that was started with a variable of this value.

    False for a process of another user, whose environment cannot be read.
    """
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{name}={value}".encode() in variables and process_identity(pid) is not None


def await_environment(pid: int, *, seconds: float = 10) -> None:
    """Wait until a process that was just started has its environment, or has ended.

    The system starts a program first and shows its variables a moment later.
    """
    path = Path(f"/proc/{pid}/environ")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process_identity(pid):
        with suppress(OSError):
            if path.read_bytes():
                return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def end_all(pids: list[int], *, grace_seconds: float) -> None:
    """End processes: SIGTERM to each first, SIGKILL to those left after a grace period."""
    identities = {pid: process_identity(pid) for pid in pids}
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid, identity in identities.items():
            if identity and process_identity(pid) == identity:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        deadline = time.monotonic() + grace_seconds
        while time.monotonic() < deadline:
            if not any(i and process_identity(pid) == i for pid, i in identities.items()):
                return
            time.sleep(SECONDS_BETWEEN_CHECKS)
