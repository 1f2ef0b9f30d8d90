"""New scans start a retraining by themselves: real servers, real worker, real processes.

Slow, some minutes in all: `make test-all` runs it, `make test` does not. One stack serves all
tests, and each goes on where the one before ended.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import checkouts
import pytest
from s3_server import S3Server
from teams import Team, drawn, until

from flows.deployments import ORPHANS
from pipeline.adapters import lifetime

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SECONDS_TO_RETRAIN = 300


@pytest.fixture(scope="module")
def team(tmp_path_factory) -> Iterator[Team]:
    team = Team(tmp_path_factory.mktemp("team"))
    try:
        team.up()
        yield team
    finally:
        team.stack("down")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> Iterator[S3Server]:
    """An S3 server with an empty bucket `scans`."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        server.address.client().create_bucket(Bucket="scans")
        yield server
    finally:
        server.stop()


def test_starting_twice_is_harmless(team):
    before = team.pid("Prefect server")
    assert team.up().count("runs already") == 3
    assert team.pid("Prefect server") == before


def test_a_port_in_use_is_a_sentence(tmp_path, team):
    root = checkouts.make(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "flows.stack", "up"], cwd=root, capture_output=True, text=True,
        env=checkouts.environment(root) | {"PREFECT_PORT": str(team.prefect)},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"port {team.prefect} of 127.0.0.1 is in use" in done.stderr


def test_a_run_that_beats_is_not_started_again_where_its_beginning_was_not_heard(team):
    lost, beating = str(uuid.uuid4()), str(uuid.uuid4())
    team.tell("Pending", beating)
    time.sleep(3)  # a flow needs as long to begin; the server takes two events at a time
    team.tell("heartbeat", beating)
    team.tell("Pending", lost)
    until(lambda: lost in team.acted_on(ORPHANS), seconds=120, why="the rule acted")
    assert beating not in team.acted_on(ORPHANS)


def test_a_dropped_batch_ends_as_a_judged_version_and_its_broken_patient_in_quarantine(team):
    team.drop("july", "NEW_AX_0004")
    team.drop("june", "NEW_AX_0001", "NEW_BR_0002", "NEW_CY_0003", broken="NEW_CY_0003")
    state = until(lambda: team.ended(1), seconds=SECONDS_TO_RETRAIN, why="one retraining ended")
    assert state == "COMPLETED"
    assert {"NEW_AX_0001", "NEW_BR_0002", "NEW_AX_0004"} <= set(team.splits())
    assert "NEW_CY_0003" not in team.splits()
    (kept_out,) = team.table("data/quarantine.csv")
    assert (kept_out["patient"], kept_out["rule"]) == ("NEW_CY_0003", "unreadable")
    assert kept_out["file"].startswith("june/")
    batches = team.batches()
    assert batches["june"]["state"] == batches["july"]["state"] == "taken"
    assert batches["june"]["kept_out"] == "NEW_CY_0003: unreadable"
    registry = team.registry()
    assert registry["champion"] == 1
    digest = registry["versions"][0]["digest"]
    assert registry["decisions"][0]["candidate"]["digest"] == digest
    (run,) = team.retrainings()
    found = team.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert {"decision", "metrics", "quarantine", "report"} <= {one["key"] for one in found}
    assert digest[:12] in next(one["data"] for one in found if one["key"] == "decision")
    assert (team.root / "data/incoming/june.dvc").exists()


def test_the_same_scans_under_another_name_start_nothing(team):
    team.drop("again", "NEW_AX_0004")
    until(lambda: team.batches().get("again", {}).get("state") == "known", seconds=90, why="known")
    assert team.next_look()["state_type"] == "COMPLETED"
    assert len(team.retrainings()) == 1


def test_a_batch_that_grows_while_it_is_watched_is_taken_whole_and_once(team):
    team.long_training(seed=10)  # for the test that follows
    folder, taken = team.root / "inbox/mended/NEW_CY_0003", team.root / "data/incoming/mended"
    folder.mkdir(parents=True)
    for name, content in drawn("NEW_CY_0003").items():
        (folder / name).write_bytes(content)
        assert not taken.exists()
        time.sleep(2)
    until(taken.exists, seconds=90, why="taken")
    found = {path.name: path.read_bytes() for path in (taken / "NEW_CY_0003").iterdir()}
    assert found == drawn("NEW_CY_0003")
    until(lambda: len(team.retrainings()) == 2, seconds=60, why="a retraining was started")
    assert team.next_look()["state_type"] == "COMPLETED"
    assert len(list(team.root.glob("data/incoming/mended*/"))) == 1
    assert len(team.retrainings()) == 2


def test_a_server_restarted_in_the_middle_loses_no_run(team):
    before = team.splits()
    team.await_training()
    flow = team.flow_process()
    team.end_server()
    assert lifetime.identity(flow)  # it lives on without a server, and may be done before the next
    team.up()
    state = until(lambda: team.ended(2), seconds=SECONDS_TO_RETRAIN, why="the second ended")
    assert state == "COMPLETED"
    assert len(team.digests()) == 2
    after = team.splits()
    assert "NEW_CY_0003" in after
    assert {patient: after[patient] for patient in before} == before
    assert team.table("data/quarantine.csv") == []


def test_a_cancelled_run_ends_its_training_and_frees_the_lock(team):
    team.long_training(seed=11)
    team.start()
    team.await_training()
    run = team.retrainings()[-1]
    body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    team.api(f"flow_runs/{run['id']}/set_state", body)
    assert until(lambda: team.ended(3), seconds=90, why="cancelled") == "CANCELLED"
    until(lambda: not team.processes("pipeline.stages", "train"), seconds=30, why="training ended")
    assert not team.processes("dvc", "repro")


def test_what_a_killed_flow_had_started_ends_by_itself(team):
    team.start()
    reached = team.await_training(epochs=team.epochs() + 2)
    flow = team.flow_process()
    team.kill_worker()  # it would see the flow die
    os.kill(flow, signal.SIGKILL)
    team.killed = datetime.now(UTC)
    team.up()
    until(lambda: not team.processes("pipeline.stages", "train"), seconds=30, why="training ended")
    assert team.epochs() >= reached


def test_an_inbox_that_is_not_there_is_a_sentence(team):
    inbox = team.root / "inbox"
    inbox.rename(team.root / "elsewhere")
    look = team.next_look()
    (team.root / "elsewhere").rename(inbox)
    assert look["state_type"] == "FAILED"
    assert look["state"]["message"].startswith(f"the inbox {inbox} is not there")
    assert "Traceback" not in team.said(look)


def test_wrong_credentials_are_a_sentence_and_the_batch_stays(team, bucket):
    for name, content in drawn("NEW_DS_0005").items():
        key = f"new/autumn/NEW_DS_0005/{name}"
        bucket.address.client().put_object(Bucket="scans", Key=key, Body=content)
    bucket.login(team.credentials, secret="wrong")
    source = {"source": "s3://scans/new", "endpoint_url": bucket.address.url}
    checkouts.change(team.root, watch=source)
    look = team.next_look()
    assert look["state_type"] == "FAILED"
    assert look["state"]["message"].startswith("s3://scans/new: the server at http://127.0.0.1")
    assert "refused" in look["state"]["message"]
    assert "Traceback" not in team.said(look)
    listed = bucket.address.client().list_objects_v2(Bucket="scans")
    assert listed["KeyCount"] == len(drawn("NEW_DS_0005"))
    assert not (team.root / "data/incoming/autumn").exists()


def test_a_killed_flow_is_marked_crashed_within_two_minutes(team):
    assert until(lambda: team.ended(4), seconds=130, why="crashed") == "CRASHED"
    crashed = datetime.fromisoformat(team.retrainings()[-1]["end_time"])
    assert (crashed - team.killed).total_seconds() < 120


def test_the_next_run_goes_on_and_survives_its_worker_before_and_after_it_began(team):
    reached = team.epochs()
    team.start()
    until(lambda: team.retrainings()[-1]["state_type"] == "PENDING", seconds=60, why="pending")
    team.kill_worker()
    team.up()
    team.await_training(epochs=reached + 1)
    flow = team.flow_process()
    team.kill_worker()
    team.up()
    assert lifetime.identity(flow)
    state = until(lambda: team.ended(5), seconds=SECONDS_TO_RETRAIN, why="the next ended")
    assert state == "COMPLETED"
    assert f"train: goes on after epoch {reached}" in team.said(team.retrainings()[-1])
    assert len(team.digests()) == 3


def test_an_s3_server_that_was_away_is_asked_again(team, bucket):
    team.long_training(seed=12)  # for the test that follows
    bucket.stop()
    bucket.login(team.credentials)
    look = team.next_look()
    assert look["state_type"] == "FAILED"
    assert look["state"]["message"].startswith("s3://scans/new: no answer at http://127.0.0.1")
    assert "Traceback" not in team.said(look)
    bucket.start()
    until((team.root / "data/incoming/autumn").exists, seconds=120, why="taken")
    assert team.batches()["autumn"]["state"] == "taken"


def test_scans_from_a_bucket_are_judged_though_worker_and_server_went_away(team):
    until(lambda: len(team.retrainings()) == 6, seconds=60, why="a retraining was started")
    team.await_training()
    team.kill_worker()
    team.end_server()
    team.up()
    state = until(lambda: team.ended(6), seconds=SECONDS_TO_RETRAIN, why="the run ended")
    assert state == "COMPLETED"
    assert "NEW_DS_0005" in team.splits()
    registry = team.registry()
    digests = [version["digest"] for version in registry["versions"]]
    assert len(set(digests)) == len(digests) == 4
    assert sorted(one["candidate"]["digest"] for one in registry["decisions"]) == sorted(digests)


def test_down_ends_every_process_of_the_stack(team):
    pids = [team.pid(part) for part in ("Prefect server", "MLflow", "Prefect worker")]
    down = team.stack("down")
    assert down.stdout.startswith("ended: Prefect worker, MLflow, Prefect server")
    assert [lifetime.identity(pid) for pid in pids] == [None] * 3
    assert "nothing of it runs" in team.stack("down").stdout
