"""A Prefect server for one `gliaflow run`, which ends with it in every case.

Prefect starts a server of its own where none is configured. That one outlives a killed parent.
"""

import os
import secrets
import subprocess
import sys
from contextlib import ExitStack

from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    get_current_settings,
    temporary_settings,
)

from pipeline.adapters.process import http_health, locks, parent_watch, processes
from pipeline.errors import GliaflowError

SECONDS_TO_START = 120
SECONDS_TO_END = 5
LOCK = "gliaflow-server.lock"
_UNTIL_EXIT = ExitStack()  # never closed: the settings hold until the process ends


def use() -> None:
    """Run flows of this process against a Prefect server of its own, until the process ends.

    Does nothing if a server is configured (`PREFECT_API_URL`): that one is used. The server
    listens on a free port of loopback and has a login of its own. It watches this process and
    ends two seconds after it, however that ends: Prefect sends its last logs as the interpreter
    shuts down, and waits for a server that is gone.

    Raises:
        GliaflowError: the server does not start.
    """
    settings = get_current_settings()
    if settings.api.url:
        return
    # Servers of one home share a database. Two that create its tables at once both fail.
    with locks.hold(settings.home / LOCK):
        _start()


def _start() -> None:
    port, login = http_health.free_port(), f"gliaflow:{secrets.token_urlsafe(24)}"
    server = subprocess.Popen(
        [
            sys.executable, "-m", "flows.server", "--host", http_health.HOST, "--port", str(port),
            "--quiet",
        ],
        env={
            **os.environ,
            "PREFECT_SERVER_API_AUTH_STRING": login,
            parent_watch.VARIABLE: processes.process_identity(os.getpid()) or "",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # not ours: who reads our output must not wait for the server
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    url = f"http://{http_health.HOST}:{port}/api"
    try:
        _wait(server, f"{url}/health")
    except BaseException:
        processes.end_group(server.pid, grace_seconds=SECONDS_TO_END)
        raise
    _UNTIL_EXIT.enter_context(
        temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: login})
    )


def _wait(server: subprocess.Popen[bytes], health: str) -> None:
    answered = http_health.wait_for_answer(
        health, seconds=SECONDS_TO_START, is_alive=lambda: server.poll() is None
    )
    if not answered:
        code = server.poll()
        fault = (
            f"did not answer at {health} within {SECONDS_TO_START} s"
            if code is None
            else f"ended with exit code {code} before it answered"
        )
        raise GliaflowError(
            f"the Prefect server of this run {fault}; run the same command again, or set "
            "PREFECT_API_URL to a server that runs"
        )
