"""The local stack as an attacker sees it: other sites, other users, wrong logins."""

import asyncio
import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import teams
import websockets
from websockets.exceptions import WebSocketException

pytestmark = pytest.mark.slow
NOBODY = 65534
EVIL = "http://evil.example"
CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    """A checkout with its stack up."""
    team = teams.Team(tmp_path_factory.mktemp("stack") / "team")
    done = team.stack("up")
    assert done.returncode == 0, done.stdout + done.stderr
    yield team
    team.stack("down")


def ask(
    port: int, path: str, *, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """Send a request; return status and body. `Host` may be anything."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(
            "GET" if body is None else "POST",
            path,
            None if body is None else json.dumps(body),
            {"Content-Type": "application/json", **(headers or {})},
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def basic(user: str, password: str) -> dict[str, str]:
    words = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {words}"}


def deployment(team) -> str:
    (found,) = team.api("deployments/filter", {"deployments": {"name": {"any_": ["lgg"]}}})
    return found["id"]


@pytest.mark.parametrize("login", [{}, basic("gliaflow", "wrong"), basic("", "")])
def test_without_the_login_no_server_answers(team, login):
    assert ask(team.prefect, "/api/admin/version", headers=login)[0] == 401
    assert ask(team.prefect, "/api/csrf-token?client=x", headers=login)[0] == 401
    assert ask(team.prefect, "/api/flow_runs/filter", body={}, headers=login)[0] in (401, 403)
    assert ask(team.mlflow, "/", headers=login)[0] == 401
    path = "/api/2.0/mlflow/experiments/search?max_results=5"
    assert ask(team.mlflow, path, headers=login)[0] == 401


def test_the_pages_open_with_the_login(team):
    assert ask(team.prefect, "/", headers=team.login())[0] == 200
    assert ask(team.prefect, "/api/admin/version", headers=team.login())[0] == 200
    status, page = ask(team.mlflow, "/", headers=team.login())
    assert status == 200 and "MLflow" in page


@pytest.mark.parametrize("port", ["prefect", "mlflow"])
def test_a_host_that_a_rebound_name_would_send_is_refused(team, port):
    headers = {"Host": "evil.example", **team.login()}
    assert ask(getattr(team, port), "/", headers=headers)[0] == 403


def test_a_foreign_origin_is_refused_even_with_login_and_token(team):
    headers = {"Origin": EVIL, **team.login(), **team.csrf_token()}
    path = f"/api/deployments/{deployment(team)}/create_flow_run"
    assert ask(team.prefect, path, body={}, headers=headers)[0] == 403
    create = "/api/2.0/mlflow/experiments/create"
    body = {"name": "planted"}
    assert ask(team.mlflow, create, body=body, headers={"Origin": EVIL, **team.login()})[0] == 403


def test_a_change_without_the_csrf_token_is_refused(team):
    path = f"/api/deployments/{deployment(team)}/create_flow_run"
    assert ask(team.prefect, path, body={}, headers=team.login())[0] == 403


def test_a_caller_cannot_choose_what_the_worker_runs(team, tmp_path):
    planted = tmp_path / "planted"
    body = {"state": {"type": "SCHEDULED"}, "job_variables": {"command": f"touch {planted}"}}
    status, answer = ask(
        team.prefect,
        f"/api/deployments/{deployment(team)}/create_flow_run",
        body=body,
        headers={**team.login(), **team.csrf_token()},
    )
    if status in (200, 201):  # accepted: then the worker must not have listened
        run = json.loads(answer)["id"]
        ended = ("COMPLETED", "FAILED", "CRASHED")
        teams.until(
            lambda: team.api(
                "flow_runs/filter",
                {"flow_runs": {"id": {"any_": [run]}, "state": {"type": {"any_": ended}}}},
            ),
            seconds=300,
            what="the run has ended",
        )
    assert not planted.exists()


@pytest.mark.parametrize("headers", [{"Origin": EVIL}, {}])
def test_events_cannot_be_sent_without_the_login(team, headers):
    async def connect() -> None:
        url = f"ws://127.0.0.1:{team.prefect}/api/events/in"
        async with websockets.connect(
            url, additional_headers=headers, subprotocols=["prefect"]
        ) as socket_:
            await socket_.send(json.dumps({"type": "auth", "token": "wrong"}))
            assert json.loads(await socket_.recv())["type"] == "auth_success"

    with pytest.raises(WebSocketException):
        asyncio.run(connect())


def test_another_user_of_the_machine_reads_nothing_and_gets_no_answer(team):
    if os.geteuid():
        pytest.skip("only root can become another user")
    code = (
        "import os, sys, pathlib\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "readable = []\n"
        f"for name in {[str(p) for p in sorted((team.root / '.local').rglob('*'))]!r}:\n"
        "    try:\n"
        "        open(name, 'rb').close(); readable.append(name)\n"
        "    except OSError:\n"
        "        pass\n"
        "print(readable)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_password_is_in_no_process_list_and_no_log(team):
    password = json.loads((team.root / ".local/stack/login.json").read_text())["password"]
    lines = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout
    assert password not in lines
    for log in (team.root / ".local/stack").glob("*.log"):
        assert password not in log.read_text(errors="replace"), log
        assert log.stat().st_mode & 0o077 == 0, log


def test_the_file_for_a_shell_is_all_that_starting_by_hand_needs(team):
    bin_folder = Path(sys.executable).parent
    script = f"source .local/stack/environment && {bin_folder}/prefect deployment ls"
    clean = {"PATH": os.environ["PATH"], "HOME": str(team.root), "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=team.root, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "retrain/lgg" in done.stdout


class _Page(BaseHTTPRequestHandler):
    """A page of another site that asks the stack, and notes what came back."""

    script = ""
    reports: list[str] = []  # noqa: RUF012 - one server per test

    def do_GET(self) -> None:
        if self.path.startswith("/report"):
            self.reports.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(f"<script>{self.script}</script>".encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_page_of_another_site_in_a_real_browser_gets_no_answer(team):
    """A simple request and one with a preflight; the page reports what it could read."""
    login = team.login()["Authorization"]
    url = f"http://127.0.0.1:{team.prefect}/api"
    _Page.reports = []
    _Page.script = f"""
      const say = text => fetch('/report?' + encodeURIComponent(text));
      (async () => {{
        for (const [name, options] of [
          ['plain', {{method: 'POST', body: '{{}}'}}],
          ['preflight', {{method: 'POST', body: '{{}}', headers: {{'Content-Type': 'application/json', 'Authorization': '{login}'}}}}],
        ]) {{
          try {{ const r = await fetch('{url}/flow_runs/filter', options); await say(name + ' read ' + r.status); }}
          catch (e) {{ await say(name + ' blocked'); }}
        }}
      }})();
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://{socket.gethostname()}.localhost:{server.server_port}/"
    subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000",
         "--dump-dom", address],
        capture_output=True, timeout=90,
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    reports = sorted(report.removeprefix("/report?") for report in set(_Page.reports))
    assert reports == ["plain%20blocked", "preflight%20blocked"]


def test_up_does_not_announce_a_login_that_a_server_refuses(team):
    """MLflow keeps the password of its first start; a new login file does not change that."""
    assert team.stack("down").returncode == 0
    (team.root / ".local/stack/login.json").unlink()
    up = team.stack("up")
    assert up.returncode == 1
    assert "MLflow does not accept the login of" in up.stderr
    assert "Traceback" not in up.stderr
    assert team.stack("down").returncode == 0
    (team.root / ".local/stack/login.json").unlink()
    (team.root / ".local/stack/mlflow-auth.db").unlink()
    team.up()
    assert ask(team.mlflow, "/", headers=team.login())[0] == 200
