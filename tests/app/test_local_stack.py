"""The local stack without starting servers: ports, processes and the environment."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from pipeline.adapters.process import processes
from pipeline.app.local_stack import MARK, LocalStack
from pipeline.errors import GliaflowError


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port of loopback that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def said() -> list[str]:
    """The messages of the stack."""
    return []


@pytest.fixture
def stack(project, free_port, said) -> LocalStack:
    return open_stack(project, said, prefect_port=free_port, mlflow_port=free_port)


def open_stack(project, said, *, prefect_port: int, mlflow_port: int) -> LocalStack:
    return LocalStack(project, prefect_port=prefect_port, mlflow_port=mlflow_port, say=said.append)


def save_processes(project, **identities: str) -> None:
    project.local.stack.mkdir(parents=True, exist_ok=True)
    names = {name.replace("_", " "): value for name, value in identities.items()}
    (project.local.stack / "processes.json").write_text(json.dumps(names))


@pytest.fixture
def start(project) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start processes that carry the mark of the project's stack, or none."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*, is_marked: bool = True) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "import time; time.sleep(300)"]
        mark = {MARK: str(project.local.stack)} if is_marked else {}
        started.append(subprocess.Popen(command, start_new_session=True, env=os.environ | mark))
        processes.await_environment(started[-1].pid)
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def identity_of(process: subprocess.Popen[bytes]) -> str:
    return processes.process_identity(process.pid) or ""


def test_a_port_in_use_is_an_error_that_names_port_part_and_variable(
    project, busy_port, free_port, said
):
    stack = open_stack(project, said, prefect_port=busy_port, mlflow_port=free_port)
    expected = (
        f"port {busy_port} of 127.0.0.1 is in use by another program, and Prefect server needs it: "
        f"end that program, or run `make up PREFECT_PORT={busy_port + 1}`"
    )
    with pytest.raises(GliaflowError) as error:
        stack.up()
    assert str(error.value) == expected
    assert said == []
    assert stack.down() == []


def test_a_port_of_mlflow_in_use_names_its_variable(project, busy_port, free_port, said, start):
    save_processes(project, Prefect_server=identity_of(start()))
    stack = open_stack(project, said, prefect_port=free_port, mlflow_port=busy_port)
    with pytest.raises(GliaflowError, match=f"MLflow needs it.*MLFLOW_PORT={busy_port + 1}"):
        stack.up()
    assert said == ["Prefect server: already running"]


def test_up_creates_the_folder_of_the_inbox(project, busy_port, free_port, said):
    stack = open_stack(project, said, prefect_port=busy_port, mlflow_port=free_port)
    with pytest.raises(GliaflowError):
        stack.up()
    assert (project.root / "inbox").is_dir()


def test_down_with_nothing_running_ends_nothing(stack):
    assert stack.down() == []
    assert stack.down() == []


def test_a_port_that_a_lost_process_of_the_stack_may_hold_names_down(stack, project, start, said):
    start()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        stack = open_stack(project, said, prefect_port=port, mlflow_port=port)
        with pytest.raises(GliaflowError, match="a process that `make down` ends, or by another"):
            stack.up()


def test_down_forgets_processes_that_have_ended(stack, project, start):
    child = start()
    save_processes(project, MLflow=identity_of(child))
    child.kill()
    child.wait()
    assert stack.down() == []
    assert not (project.local.stack / "processes.json").exists()


def test_down_spares_a_process_that_reused_an_id(stack, project, start):
    save_processes(project, MLflow=f"{start(is_marked=False).pid}:1")
    assert stack.down() == []


def test_down_spares_another_program_that_a_record_names_exactly(stack, project, start):
    other = start(is_marked=False)
    save_processes(project, MLflow=identity_of(other))
    assert stack.down() == []
    assert other.poll() is None


@pytest.mark.parametrize(
    "record",
    ["", "{", "[1, 2]", '"text"', "null", '{"MLflow": 7, "Prefect server": null}',
     '{"MLflow": "²:1", "Prefect worker": "../1:1"}', "[" * 10**5, "\x00\x01"],
)  # fmt: skip
def test_down_ends_the_processes_of_the_stack_although_the_record_is_damaged(
    stack, project, start, record
):
    child, other = start(), start(is_marked=False)
    save_processes(project)
    (project.local.stack / "processes.json").write_text(record)
    assert stack.down() == ["processes that the record did not name"]
    assert child.wait(timeout=20) != 0
    assert other.poll() is None


def test_down_survives_a_record_that_is_not_utf_8(stack, project):
    save_processes(project)
    (project.local.stack / "processes.json").write_bytes(b"\xff\xfe{")
    assert stack.down() == []


def test_down_ends_the_processes_of_the_stack_and_names_them_worker_first(stack, project, start):
    children = [start(), start()]
    save_processes(
        project, MLflow=identity_of(children[0]), Prefect_worker=identity_of(children[1])
    )
    assert stack.down() == ["Prefect worker", "MLflow"]
    for child in children:
        assert child.wait(timeout=20) != 0
    assert stack.down() == []


def test_the_environment_has_no_prefect_variables_of_the_user(
    project, free_port, said, monkeypatch
):
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("PREFECT_API_URL", "https://cloud.example/api")
    monkeypatch.setenv("PREFECT_PROFILE", "team")
    monkeypatch.setenv("HOME", "/home/ada")
    stack = open_stack(project, said, prefect_port=free_port, mlflow_port=free_port)
    environment = stack.environment()
    assert "PREFECT_API_KEY" not in environment
    assert "PREFECT_PROFILE" not in environment
    assert environment["PREFECT_API_URL"] == f"http://127.0.0.1:{free_port}/api"
    assert environment["PREFECT_HOME"] == str(project.root / ".local/prefect")
    assert environment["HOME"] == "/home/ada"


def test_the_environment_finds_the_commands_of_this_python_first(stack):
    first = stack.environment()["PATH"].split(os.pathsep)[0]
    assert first == str(os.path.dirname(sys.executable))  # noqa: PTH120


def test_usage_reports_are_off_in_the_environment(stack):
    assert stack.environment()["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
