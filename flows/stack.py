"""`make up` and `make down`: Prefect server and worker and MLflow as processes of this machine.

All on loopback, all data in `.local/`. Ends exactly the processes that it started, known by
process id and start time.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import telemetry
from pipeline.adapters import files, lifetime, project
from pipeline.adapters.project import Project
from pipeline.errors import GliaflowError

HOST = "127.0.0.1"
SECONDS_TO_ANSWER = 120
SECONDS_TO_END = 20


@dataclass(frozen=True)
class Part:
    """A process of the stack. health: an address that answers once it is up; empty: none."""

    name: str
    command: tuple[str, ...]
    health: str
    port: int


class Stack:
    """The parts of one checkout.

    Args:
        own: the checkout.
        prefect_port, mlflow_port: on loopback.
    """

    def __init__(self, own: Project, *, prefect_port: int, mlflow_port: int):
        self._own = own
        self._folder = own.root / ".local" / "stack"
        self._prefect = f"http://{HOST}:{prefect_port}"
        self._mlflow = f"http://{HOST}:{mlflow_port}"
        self._parts = self._make_parts(prefect_port, mlflow_port)

    def up(self) -> None:
        """Start what does not run yet, wait until it answers, apply the deployments.

        Raises:
            GliaflowError: a port is in use by something else, or a part does not come up; what
                was started is left for `make down`.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        inbox = self._own.params().watch.source
        if "://" not in inbox:
            (self._own.root / Path(inbox).expanduser()).mkdir(parents=True, exist_ok=True)
        server, mlflow, worker = self._parts
        for part in (server, mlflow):
            self._start(part)
        for part in (server, mlflow):
            self._await(part)
        self._apply()
        self._start(worker)
        self._say(inbox)

    def down(self) -> list[str]:
        """End what `up` started, worker first; the names of what was ended."""
        ended = []
        for part in reversed(self._parts):
            identity = self._running().get(part.name)
            if identity is not None:
                _end(int(identity.partition(":")[0]), identity)
                ended.append(part.name)
        (self._folder / "processes.json").unlink(missing_ok=True)
        return ended

    def environment(self) -> dict[str, str]:
        """What a process needs to talk to this stack."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        bin_folder = str(Path(sys.executable).parent)
        return {
            **kept,
            **telemetry.SILENT,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}",
            "PREFECT_HOME": str(self._own.root / ".local" / "prefect"),
            "PREFECT_API_URL": f"{self._prefect}/api",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # four processes that nothing here uses
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
                "prefect.server.concurrency.lease_storage.filesystem"
            ),
        }

    def _make_parts(self, prefect_port: int, mlflow_port: int) -> tuple[Part, Part, Part]:
        python = (sys.executable, "-m")
        store = self._own.params().register_.tracking_uri
        at = ("--host", HOST, "--port")
        server = (*python, "flows.prefect_server", *at, str(prefect_port))
        # It is looked at, not written through: one worker of four, which start four times as fast.
        mlflow = (*python, "mlflow", "server", "--workers", "1")
        return (
            Part("Prefect server", server, f"{self._prefect}/api/health", prefect_port),
            Part(
                "MLflow",
                (*mlflow, "--backend-store-uri", store, *at, str(mlflow_port)),
                f"{self._mlflow}/health",
                mlflow_port,
            ),
            Part(
                "Prefect worker",
                (*python, "prefect", "worker", "start", "--pool", "gliaflow", "--type", "process"),
                "",
                0,
            ),
        )

    def _start(self, part: Part) -> None:
        if part.name in self._running():
            print(f"{part.name}: runs already")
            return
        if part.port and _in_use(part.port):
            variable = "PREFECT_PORT" if part.name.startswith("Prefect") else "MLFLOW_PORT"
            raise GliaflowError(
                f"port {part.port} of {HOST} is in use by another program; {part.name} needs it: "
                f"end that program, or call `make up {variable}={part.port + 1}`"
            )
        with self._log(part).open("ab") as log:
            process = subprocess.Popen(
                part.command,
                cwd=self._own.root,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._note({**self._running(), part.name: lifetime.identity(process.pid) or ""})
        print(f"{part.name}: started, process {process.pid}", flush=True)

    def _await(self, part: Part) -> None:
        until = time.monotonic() + SECONDS_TO_ANSWER
        while time.monotonic() < until:
            if part.name not in self._running():
                break
            try:
                with urllib.request.urlopen(part.health, timeout=5):  # noqa: S310 - our own
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise GliaflowError(
            f"{part.name} does not answer at {part.health}; {self._log(part)} says why. "
            "`make down` ends what was started"
        )

    def _apply(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "flows.deployments", str(self._own.root)],
            cwd=self._own.root,
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
            raise GliaflowError(
                f"the deployments could not be applied: {''.join(last).removeprefix('gliaflow: ')}"
            )
        print("deployments: retrain/lgg and watch/inbox are applied")

    def _say(self, inbox: str) -> None:
        print(
            f"\nPrefect   {self._prefect}\nMLflow    {self._mlflow}\n"
            f"inbox     {inbox}: drop <batch>/<patient>/*.tif there; `gliaflow inbox` shows it\n"
            f"by hand   PREFECT_API_URL={self._prefect}/api prefect deployment run retrain/lgg\n"
            "end       make down"
        )

    def _running(self) -> dict[str, str]:
        """Parts that are alive: name to process identity."""
        try:
            noted: Mapping[str, str] = json.loads((self._folder / "processes.json").read_text())
        except (OSError, ValueError):
            return {}
        return {
            name: identity
            for name, identity in noted.items()
            if identity and lifetime.identity(int(identity.partition(":")[0])) == identity
        }

    def _note(self, processes: Mapping[str, str]) -> None:
        files.write_json(self._folder / "processes.json", dict(processes))

    def _log(self, part: Part) -> Path:
        return self._folder / f"{part.name.lower().replace(' ', '-')}.log"


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _end(pid: int, identity: str) -> None:
    """End a process and its session, first politely."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + SECONDS_TO_END
        while time.monotonic() < until:
            if lifetime.identity(pid) != identity:
                return
            time.sleep(0.2)


def main(arguments: list[str]) -> int:
    if arguments not in (["up"], ["down"]):
        print("usage: python -m flows.stack up|down", file=sys.stderr)
        return 2
    try:
        stack = Stack(
            project.find(Path.cwd()),
            prefect_port=int(os.environ.get("PREFECT_PORT", "4200")),
            mlflow_port=int(os.environ.get("MLFLOW_PORT", "5000")),
        )
        if arguments == ["up"]:
            stack.up()
        else:
            ended = stack.down()
            print(f"ended: {', '.join(ended)}" if ended else "nothing of it runs")
    except GliaflowError as error:
        print(f"gliaflow: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
