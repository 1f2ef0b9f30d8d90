"""Run the Prefect server and worker and MLflow as local processes: `make up`, `make down`.

They listen on loopback and keep their data in `.local/`. `down` ends exactly the processes
that `up` started, known by process id and start time.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import telemetry
from pipeline.adapters.checkout.project import Project
from pipeline.adapters.process import http_health, processes
from pipeline.adapters.storage import json_files, private_files
from pipeline.adapters.tracking.mlflow_client import tracking_uri
from pipeline.app import stack_login
from pipeline.errors import GliaflowError

SECONDS_TO_START = 120
SECONDS_TO_END = 20
SECONDS_TO_LOG_IN = 20
MARK = "GLIAFLOW_STACK"  # set for every process of a stack, and inherited


@dataclass(frozen=True)
class Part:
    """A process of the stack.

    health: URL that answers once the process is ready; empty: none. port: 0: none. option: the
    variable of `make up` that changes the port.
    """

    name: str
    command: tuple[str, ...]
    health: str = ""
    port: int = 0
    option: str = ""


class LocalStack:
    """The stack of one checkout.

    Args:
        project: the checkout.
        prefect_port, mlflow_port: on loopback.
        say: receives messages.
    """

    def __init__(
        self, project: Project, *, prefect_port: int, mlflow_port: int, say: Callable[[str], None]
    ):
        self._project = project
        self._say = say
        self._folder = project.local.stack
        self._prefect = f"http://{http_health.HOST}:{prefect_port}"
        self._mlflow = f"http://{http_health.HOST}:{mlflow_port}"
        self._prefect_port = prefect_port
        self._server, self._tracking, self._worker = self._parts(prefect_port, mlflow_port)

    def up(self) -> None:
        """Start what does not run yet, wait until it answers, and apply the deployments.

        Raises:
            GliaflowError: a port is in use, or a process does not start. Those that were
                started keep running until `down`.
        """
        private_files.make_private_folder(self._project.local.folder)
        private_files.make_private_folder(self._folder)
        self._write_secrets()
        inbox = self._project.params.watch.source
        if "://" not in inbox:
            (self._project.root / Path(inbox).expanduser()).mkdir(parents=True, exist_ok=True)
        for part in (self._server, self._tracking):
            self._start(part)
        for part in (self._server, self._tracking):
            self._wait(part)
        self._check_login()
        self._apply_deployments()
        self._start(self._worker)
        self._say(
            f"\nPrefect   {self._prefect}\nMLflow    {self._mlflow}\n"
            f"inbox     {inbox}: drop <batch>/<patient>/*.tif there; `gliaflow inbox` shows it\n"
            f"login     user {self._login().user}; the password is in {self._relative(self._project.local.login)}\n"
            f"by hand   source {self._relative(self._project.local.stack_environment)} && "
            "prefect deployment run retrain/lgg\n"
            "end       make down"
        )

    def down(self) -> list[str]:
        """End what `up` started, the worker first, and everything that those started.

        Processes are found by the record of `up` and, if it is damaged or a parent was killed,
        by a variable that all of them inherit.

        Returns:
            Names of what was ended; empty if nothing was running.

        Raises:
            GliaflowError: a process is still running; the record is kept.
        """
        ended = []
        running = self._running()
        for part in (self._worker, self._tracking, self._server):
            if part.name in running:
                pid = _process_id(running[part.name])
                processes.end_group(pid, grace_seconds=SECONDS_TO_END)
                ended.append(part.name)
        others = processes.with_variable(MARK, str(self._folder))
        if others:
            processes.end_all(others, grace_seconds=SECONDS_TO_END)
            ended.append("processes that the record did not name")
        left = processes.with_variable(MARK, str(self._folder))
        if left:
            raise GliaflowError(
                f"processes {', '.join(map(str, left))} of the stack are still running; end them "
                "with `kill -9`, then run `make down` again"
            )
        (self._folder / "processes.json").unlink(missing_ok=True)
        return ended

    def environment(self) -> dict[str, str]:
        """Return the environment of the processes of this stack. It holds the login."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        bin_folder = str(Path(sys.executable).parent)
        login = self._login()
        origins = f"{self._prefect},http://localhost:{self._prefect_port}"
        root = self._project.root
        return {
            **inherited,
            **telemetry.SILENT,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}",
            "PREFECT_HOME": str(self._project.local.prefect_home),
            **self._client_environment(),
            MARK: str(self._folder),
            "PREFECT_SERVER_API_AUTH_STRING": login.prefect_auth,
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origins,
            "MLFLOW_BACKEND_STORE_URI": tracking_uri(self._project.params.register_, root),
            "MLFLOW_AUTH_CONFIG_PATH": str(self._folder / "mlflow-auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": login.session_key,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves four unused processes
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
                "prefect.server.concurrency.lease_storage.filesystem"
            ),
        }

    def _client_environment(self) -> dict[str, str]:
        """Variables with which `prefect` and `mlflow` talk to this stack. They hold the login."""
        login = self._login()
        return {
            "PREFECT_API_URL": f"{self._prefect}/api",
            "PREFECT_API_AUTH_STRING": login.prefect_auth,
            "MLFLOW_TRACKING_USERNAME": login.user,
            "MLFLOW_TRACKING_PASSWORD": login.password,
        }

    def _write_secrets(self) -> None:
        """Write what MLflow reads its login from, and what a shell sources; both of mode 600."""
        login, database = self._login(), self._folder / "mlflow-auth.db"
        private_files.touch_private(database)
        private_files.write_private(
            self._folder / "mlflow-auth.ini",
            "[mlflow]\n"
            "default_permission = NO_PERMISSIONS\n"
            f"database_uri = sqlite:///{database}\n"
            f"admin_username = {login.user}\n"
            f"admin_password = {login.password}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        )
        stack_login.write_environment(self._project.local, self._client_environment())

    def _login(self) -> stack_login.Login:
        return stack_login.load_or_create(self._project.local)

    def _relative(self, path: Path) -> Path:
        return path.relative_to(self._project.root)

    def _parts(self, prefect_port: int, mlflow_port: int) -> tuple[Part, Part, Part]:
        python = (sys.executable, "-m")
        address = ("--host", http_health.HOST, "--port")
        # People only browse this server. One worker starts four times as fast as the usual four.
        mlflow = (*python, "mlflow", "server", "--workers", "1", "--app-name", "basic-auth")
        worker = ("prefect", "worker", "start", "--pool", "gliaflow", "--type", "process")
        return (
            Part(
                "Prefect server",
                (*python, "flows.server", *address, str(prefect_port)),
                f"{self._prefect}/api/health",
                prefect_port,
                "PREFECT_PORT",
            ),
            Part(
                "MLflow",
                (*mlflow, *address, str(mlflow_port)),
                f"{self._mlflow}/health",
                mlflow_port,
                "MLFLOW_PORT",
            ),
            Part("Prefect worker", (*python, *worker)),
        )

    def _start(self, part: Part) -> None:
        if part.name in self._running():
            self._say(f"{part.name}: already running")
            return
        if part.port and http_health.is_in_use(part.port):
            raise GliaflowError(self._port_in_use(part))
        private_files.touch_private(self._log(part))
        with self._log(part).open("ab") as log:
            process = subprocess.Popen(
                part.command,
                cwd=self._project.root,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=private_files.UMASK,
            )
        identity = processes.process_identity(process.pid) or ""
        processes.await_environment(process.pid)  # without its mark it would not count as ours
        self._save({**self._running(), part.name: identity})
        self._say(f"{part.name}: started, process {process.pid}")

    def _port_in_use(self, part: Part) -> str:
        """Explain a port in use; processes of this stack that its record lost may hold it."""
        is_left = processes.with_variable(MARK, str(self._folder))
        holder = (
            "a process that `make down` ends, or by another program"
            if is_left
            else "another program"
        )
        return (
            f"port {part.port} of {http_health.HOST} is in use by {holder}, and {part.name} needs "
            f"it: end that program, or run `make up {part.option}={part.port + 1}`"
        )

    def _wait(self, part: Part) -> None:
        if not http_health.wait_for_answer(
            part.health,
            seconds=SECONDS_TO_START,
            is_alive=lambda: part.name in self._running(),
        ):
            raise GliaflowError(
                f"{part.name} does not answer at {part.health}; {self._log(part)} says why. "
                "`make down` ends what was started"
            )

    def _check_login(self) -> None:
        """Make sure that both servers accept the login that `up` is about to announce."""
        login = self._login()
        token = base64.b64encode(login.prefect_auth.encode()).decode()
        pages = {
            self._server.name: f"{self._prefect}/api/admin/version",
            self._tracking.name: f"{self._mlflow}/api/2.0/mlflow/experiments/search?max_results=1",
        }
        for name, url in pages.items():
            if not http_health.wait_for_answer(
                url,
                seconds=SECONDS_TO_LOG_IN,
                is_alive=lambda: True,
                headers={"Authorization": f"Basic {token}"},
            ):
                raise GliaflowError(
                    f"{name} does not accept the login of {self._project.local.login}; run `make "
                    f"down`, delete that file and mlflow-auth.db beside it, and run `make up` again"
                )

    def _apply_deployments(self) -> None:
        root = self._project.root
        done = subprocess.run(
            [sys.executable, "-m", "flows.deployments", str(root)],
            cwd=root,
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
            raise GliaflowError(
                f"the deployments could not be applied: {''.join(last).removeprefix('gliaflow: ')}"
            )
        self._say("deployments: applied retrain/lgg, approve/champion and watch/inbox")

    def _running(self) -> dict[str, str]:
        """Map the name of each part that runs to its process identity.

        Processes that do not carry the mark of this stack are left out, whatever the record says.
        """
        try:
            saved: Mapping[str, str] = json.loads((self._folder / "processes.json").read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(saved, dict):
            return {}
        return {
            name: identity
            for name, identity in saved.items()
            if isinstance(identity, str) and self._is_ours(identity)
        }

    def _is_ours(self, identity: str) -> bool:
        """Whether the process runs, under this id since this start, and belongs to this stack."""
        return processes.is_running(identity) and processes.has_variable(
            _process_id(identity), name=MARK, value=str(self._folder)
        )

    def _save(self, running: Mapping[str, str]) -> None:
        json_files.write_json(self._folder / "processes.json", dict(running))

    def _log(self, part: Part) -> Path:
        return self._folder / f"{part.name.lower().replace(' ', '-')}.log"


def _process_id(identity: str) -> int:
    return int(identity.partition(":")[0])
