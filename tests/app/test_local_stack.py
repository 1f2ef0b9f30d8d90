"""The local stack without starting servers: ports, processes and the environment."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipeline.adapters.process import processes
from pipeline.app.local_stack import LocalStack
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


def this_process() -> str:
    identity = processes.process_identity(os.getpid())
    assert identity is not None
    return identity


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


def test_a_port_of_mlflow_in_use_names_its_variable(project, busy_port, free_port, said):
    save_processes(project, Prefect_server=this_process())
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


def test_down_forgets_processes_that_have_ended(stack, project):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    save_processes(project, MLflow=processes.process_identity(child.pid) or "")
    child.kill()
    child.wait()
    assert stack.down() == []
    assert not (project.local.stack / "processes.json").exists()


def test_down_spares_a_process_that_reused_an_id(stack, project):
    save_processes(project, MLflow=f"{os.getpid()}:1")  # this process started at another time
    assert stack.down() == []


def test_down_survives_a_damaged_record(stack, project):
    save_processes(project)
    (project.local.stack / "processes.json").write_text("{")
    assert stack.down() == []


def test_down_ends_the_processes_of_the_stack_and_names_them_worker_first(stack, project):
    command = [sys.executable, "-c", "import time; time.sleep(300)"]
    children = [subprocess.Popen(command, start_new_session=True) for _ in range(2)]
    identities = [processes.process_identity(child.pid) or "" for child in children]
    save_processes(project, MLflow=identities[0], Prefect_worker=identities[1])
    assert stack.down() == ["Prefect worker", "MLflow"]
    for child in children:
        assert child.wait(timeout=20) != 0
    assert not any(processes.is_running(identity) for identity in identities)
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
