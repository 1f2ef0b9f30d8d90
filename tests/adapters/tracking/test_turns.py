"""Decisions of several processes at once, and of processes that die, on SQLite and Postgres."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import promote_at_once
import pytest
from mlflow import MlflowClient

from pipeline.adapters.process import http_health
from pipeline.adapters.tracking.registry import Registry

ROOT = Path(__file__).parents[3]
PROCESSES, CALLS = 4, 5


def promote(uri: str, *arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(
        [sys.executable, promote_at_once.__file__, uri, *arguments],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def make_versions(uri: str, folder: Path) -> Registry:
    registry = promote_at_once.open_registry(uri)
    client = MlflowClient(uri)
    client.create_registered_model(promote_at_once.MODEL)
    for _ in range(2):
        client.create_model_version(promote_at_once.MODEL, source=str(folder))
    return registry


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def postgres(tmp_path: Path, monkeypatch) -> Iterator[str]:
    """A Postgres server of the system's binaries, which ends with the test."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    missing = [name for name in ("initdb", "pg_ctl", "postgres") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"Postgres is not installed: no {', '.join(missing)} on PATH")
    pytest.importorskip("psycopg2", reason="MLflow needs psycopg2 for Postgres")
    data, port = tmp_path / "postgres", http_health.free_port()
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    data.mkdir()
    if as_user:
        shutil.chown(data, "postgres")
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {data}"
    run = {"check": True, "capture_output": True, "cwd": data, "timeout": 120}
    subprocess.run([*as_user, "initdb", "-D", data, "-A", "trust", "-U", "gliaflow"], **run)
    log = data / "log"
    subprocess.run([*as_user, "pg_ctl", "-D", data, "-o", options, "-l", log, "-w", "start"], **run)
    yield f"postgresql://gliaflow@127.0.0.1:{port}/postgres"
    subprocess.run([*as_user, "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], **run)


@pytest.fixture(params=["sqlite", "postgres"])
def uri(request) -> str:
    return request.getfixturevalue(request.param)


def expect_one_order(registry: Registry, count: int) -> None:
    records = registry.decisions()[::-1]
    assert len(records) == count
    for earlier, later in pairwise(records):
        assert later.number > earlier.number
        assert later.champion.before == earlier.champion.after
    assert registry.champion().version == records[-1].champion.after


@pytest.mark.slow
def test_twenty_decisions_at_once_give_one_order_that_agrees_with_the_alias(uri, tmp_path):
    registry = make_versions(uri, tmp_path)
    running = [promote(uri, str(CALLS)) for _ in range(PROCESSES)]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0] * PROCESSES, outputs
    expect_one_order(registry, PROCESSES * CALLS)
    assert [record.number for record in registry.decisions()] == list(range(20, 0, -1))
    models = MlflowClient(uri).search_registered_models()
    assert [model.name for model in models] == [promote_at_once.MODEL]


@pytest.mark.parametrize("step", list(promote_at_once.STEPS))
def test_the_next_decision_settles_one_whose_process_died(sqlite, tmp_path, step):
    registry = make_versions(sqlite, tmp_path)
    promote_at_once.decide(registry, 1)
    died = promote(sqlite, "1", step)
    died.communicate(timeout=120)
    assert died.returncode == 9
    was_moved = step in ("move", "done")
    promote_at_once.decide(registry, 2)
    expect_one_order(registry, 3 if was_moved else 2)


@pytest.mark.parametrize("step", list(promote_at_once.STEPS))
def test_looking_at_the_registry_settles_one_whose_process_died(sqlite, tmp_path, step):
    registry = make_versions(sqlite, tmp_path)
    died = promote(sqlite, "1", step)
    died.communicate(timeout=120)
    registry.settle_last()
    was_moved = step in ("move", "done")
    assert (registry.champion() is not None) == was_moved
    assert len(registry.decisions()) == was_moved


def test_a_holder_that_lost_its_turn_moves_nothing(sqlite, tmp_path, monkeypatch):
    registry = make_versions(sqlite, tmp_path)
    client = MlflowClient(sqlite)
    write_intent = registry._log.write_intent

    def lose_the_turn(decision):
        run_id = write_intent(decision)
        client.delete_registered_model(f"{promote_at_once.MODEL}.decision-1")
        return run_id

    monkeypatch.setattr(registry._log, "write_intent", lose_the_turn)
    with pytest.raises(Exception, match="another one settled it; run the same command again"):
        promote_at_once.decide(registry, 1)
    assert registry.champion() is None
