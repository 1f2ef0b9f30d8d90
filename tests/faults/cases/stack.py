"""The local stack when its record is damaged, its parents were killed, or the machine restarted.

Each fault starts the real stack on free ports and runs a program beside it that is not the
stack's: `gliaflow down` must end all of the one and nothing of the other.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from faults.matrix import fault
from faults.workplace import RUN_MARK, Workplace
from pipeline.adapters.process import http_health, processes

PARTS = ("Prefect server", "MLflow", "Prefect worker")
DOWN = "`down` ends all of the stack and nothing else; ports are free"


class Stack:
    """The stack of a workplace, on free ports, and a program beside it."""

    def __init__(self, place: Workplace, beside: int):
        self.beside = beside
        self._place = place
        self._ports = [http_health.free_port(), http_health.free_port()]
        self.record = place.root / ".local/stack/processes.json"

    def call(self, command: str) -> subprocess.CompletedProcess[str]:
        return self._place.call("gliaflow", command, **self.port_variables())

    def port_variables(self) -> dict[str, str]:
        prefect, mlflow = map(str, self._ports)
        return {"PREFECT_PORT": prefect, "MLFLOW_PORT": mlflow}

    def up(self) -> dict[str, str]:
        """Start the stack; return the identity of each part."""
        done = self.call("up")
        assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
        identities: dict[str, str] = json.loads(self.record.read_text())
        assert set(identities) == set(PARTS), identities
        return identities

    def check_down(self) -> str:
        """Run `gliaflow down` and check what it ended; return what it printed."""
        done = self.call("down")
        assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
        assert self.running() == [self.beside], f"run: {self.running()}, beside {self.beside}"
        assert not any(map(http_health.is_in_use, self._ports)), "a port is in use"
        assert not self.record.exists()
        return done.stdout.strip()

    def running(self) -> list[int]:
        """Return the processes of the workplace, those that lost the stack's mark included."""
        return processes.with_variable(RUN_MARK, str(self._place.root))


@contextmanager
def stack(place: Workplace) -> Iterator[Stack]:
    command = ["sleep", "3600"]
    beside = subprocess.Popen(command, env=os.environ | {RUN_MARK: str(place.root)})
    try:
        yield Stack(place, beside.pid)
    finally:
        beside.kill()
        beside.wait()


def _down_with(place: Workplace, record: bytes | None = None) -> str:
    """Start the stack, replace its record (None: cut the true one in half), and end it."""
    with stack(place) as local:
        local.up()
        content = local.record.read_bytes()
        local.record.write_bytes(content[: len(content) // 2] if record is None else record)
        return local.check_down()


@fault("stack", "record of `make up` is garbage, then `make down`", must_hold=DOWN)
def garbage_record(place: Workplace) -> str:
    return _down_with(place, b"\xff\xfe\x00{" + b"[" * 10**5)


@fault("stack", "record of `make up` is cut off, then `make down`", must_hold=DOWN)
def cut_record(place: Workplace) -> str:
    return _down_with(place)


@fault("stack", "record of `make up` names other programs, then `make down`", must_hold=DOWN)
def record_of_other_programs(place: Workplace) -> str:
    with stack(place) as local:
        local.up()
        other = processes.process_identity(local.beside)
        local.record.write_text(
            json.dumps({"MLflow": other, "Prefect server": ["1:1"], "Prefect worker": 7})
        )
        return local.check_down()


@fault("stack", "parents of the stack's processes killed -9, then `make down`", must_hold=DOWN)
def killed_parents(place: Workplace) -> str:
    with stack(place) as local:
        leaders = [int(identity.partition(":")[0]) for identity in local.up().values()]
        for pid in leaders:
            os.kill(pid, signal.SIGKILL)
        orphans = len(set(local.running()) - {local.beside, *leaders})
        return f"orphans: {orphans}; {local.check_down()}"


@fault("stack", "`make up` killed -9 at 5 moments, then `make down`", must_hold=DOWN)
def killed_up(place: Workplace) -> str:
    seen = []
    with stack(place) as local:
        for wait in (2, 4, 8, 12, 16):
            process = place.start(
                "gliaflow", "up", log=place.folder / "up.log", **local.port_variables()
            )
            try:
                process.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            seen.append(len(local.running()) - 1)
            local.check_down()
    return f"processes that ran when it was killed: {', '.join(map(str, seen))}"


@fault(
    "stack",
    "record from before a restart of the machine; other programs have its ids",
    must_hold="`down` ends nothing",
    is_short=True,
)
def reused_ids(place: Workplace) -> str:
    with stack(place) as local:
        identity = processes.process_identity(local.beside) or ""
        earlier = f"{local.beside}:{int(identity.partition(':')[2]) - 1}"
        for record in (dict.fromkeys(PARTS, earlier), dict.fromkeys(PARTS, identity)):
            local.record.parent.mkdir(parents=True, exist_ok=True)
            local.record.write_text(json.dumps(record))
            printed = local.check_down()
            assert printed == "nothing was running", printed
    return printed
