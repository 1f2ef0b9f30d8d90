"""New scans start a retraining by themselves: with real servers, worker and processes.

One stack serves all tests, and each continues where the last one ended. Slow, several minutes in
all: `make test-all` runs them, `make test` does not.
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
from teams import Team, scan_files, until

from flows.deployments import ORPHANS
from pipeline.adapters.process import processes

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


def await_end(team: Team, *, retrainings: int, seconds: float = SECONDS_TO_RETRAIN) -> str:
    """Wait until so many retrainings have ended; return the state of the last one."""
    return until(
        lambda: team.final_state(retrainings=retrainings),
        seconds=seconds,
        what=f"{retrainings} retrainings have ended",
    )


def await_no_training(team: Team) -> None:
    until(
        lambda: not team.processes("pipeline.stages", "train"),
        seconds=30,
        what="the training has ended",
    )


def test_starting_twice_starts_nothing_new(team):
    before = team.pid("Prefect server")
    assert team.up().count("already running") == 3
    assert team.pid("Prefect server") == before


def test_a_port_in_use_is_an_error_message(tmp_path, team):
    root = checkouts.make(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "gliaflow", "up"], cwd=root, capture_output=True, text=True,
        env=checkouts.environment(root) | {"PREFECT_PORT": str(team.prefect)},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"port {team.prefect} of 127.0.0.1 is in use" in done.stderr


def test_a_run_with_heartbeats_is_not_rescheduled_if_its_start_event_was_lost(team):
    orphan, beating = str(uuid.uuid4()), str(uuid.uuid4())
    team.send_event("Pending", beating)
    time.sleep(3)  # a flow needs as long to begin; the server takes two events at a time
    team.send_event("heartbeat", beating)
    team.send_event("Pending", orphan)
    until(lambda: orphan in team.acted_on(ORPHANS), seconds=120, what="the rule has acted")
    assert beating not in team.acted_on(ORPHANS)


def test_dropped_batches_become_a_judged_version_and_a_broken_patient_is_quarantined(team):
    team.drop("july", "NEW_AX_0004")
    team.drop("june", "NEW_AX_0001", "NEW_BR_0002", "NEW_CY_0003", broken="NEW_CY_0003")
    assert await_end(team, retrainings=1) == "COMPLETED"
    assert {"NEW_AX_0001", "NEW_BR_0002", "NEW_AX_0004"} <= set(team.splits())
    assert "NEW_CY_0003" not in team.splits()
    (quarantined,) = team.table("data/quarantine.csv")
    assert (quarantined["patient"], quarantined["rule"]) == ("NEW_CY_0003", "unreadable")
    assert quarantined["file"].startswith("june/")
    batches = team.batches()
    assert batches["june"]["state"] == batches["july"]["state"] == "taken"
    assert batches["june"]["kept_out"] == "NEW_CY_0003: unreadable"
    registry = team.registry()
    assert registry["champion"] == 1
    digest = registry["versions"][0]["digest"]
    assert registry["decisions"][0]["candidate"]["digest"] == digest
    (run,) = team.retrainings()
    artifacts = team.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    contents = {artifact["key"]: artifact["data"] for artifact in artifacts}
    assert {"decision", "metrics", "quarantine", "report"} <= set(contents)
    assert digest[:12] in contents["decision"]
    assert (team.root / "data/incoming/june.dvc").exists()


def test_the_same_scans_under_another_batch_name_start_nothing(team):
    team.drop("again", "NEW_AX_0004")
    until(
        lambda: team.batches().get("again", {}).get("state") == "known",
        seconds=90,
        what="the batch is known",
    )
    assert team.next_check()["state_type"] == "COMPLETED"
    assert len(team.retrainings()) == 1


def test_a_batch_that_is_still_growing_is_imported_whole_and_once(team):
    team.long_training(seed=10)  # for the test that follows
    folder, imported = team.root / "inbox/mended/NEW_CY_0003", team.root / "data/incoming/mended"
    folder.mkdir(parents=True)
    for name, content in scan_files("NEW_CY_0003").items():
        (folder / name).write_bytes(content)
        assert not imported.exists()
        time.sleep(2)
    until(imported.exists, seconds=90, what="the batch is imported")
    contents = {path.name: path.read_bytes() for path in (imported / "NEW_CY_0003").iterdir()}
    assert contents == scan_files("NEW_CY_0003")
    until(lambda: len(team.retrainings()) == 2, seconds=60, what="a retraining has started")
    assert team.next_check()["state_type"] == "COMPLETED"
    assert len(list(team.root.glob("data/incoming/mended*/"))) == 1
    assert len(team.retrainings()) == 2


def test_a_server_that_restarts_during_a_run_loses_no_run(team):
    before = team.splits()
    team.await_training()
    flow = team.flow_process()
    team.end_server()
    # The flow survives without a server. Look now: it may have ended before the next server is up.
    assert processes.process_identity(flow)
    team.up()
    assert await_end(team, retrainings=2) == "COMPLETED"
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
    assert await_end(team, retrainings=3, seconds=90) == "CANCELLED"
    await_no_training(team)
    assert not team.processes("dvc", "repro")


def test_the_children_of_a_killed_flow_end_by_themselves(team):
    team.start()
    reached = team.await_training(epochs=team.epochs() + 2)
    flow = team.flow_process()
    team.kill_worker()  # it would notice that the flow died
    os.kill(flow, signal.SIGKILL)
    team.killed = datetime.now(UTC)
    team.up()
    await_no_training(team)
    assert team.epochs() >= reached


def test_a_missing_inbox_is_an_error_message(team):
    inbox = team.root / "inbox"
    inbox.rename(team.root / "elsewhere")
    check = team.next_check()
    (team.root / "elsewhere").rename(inbox)
    assert check["state_type"] == "FAILED"
    assert check["state"]["message"].startswith(f"the inbox {inbox} is not there")
    assert "Traceback" not in team.logs(check)


def test_wrong_credentials_are_an_error_message_and_the_batch_stays(team, bucket):
    for name, content in scan_files("NEW_DS_0005").items():
        key = f"new/autumn/NEW_DS_0005/{name}"
        bucket.address.client().put_object(Bucket="scans", Key=key, Body=content)
    bucket.login(team.credentials, secret="wrong")
    source = {"source": "s3://scans/new", "endpoint_url": bucket.address.url}
    checkouts.change(team.root, watch=source)
    check = team.next_check()
    assert check["state_type"] == "FAILED"
    assert check["state"]["message"].startswith("s3://scans/new: the server at http://127.0.0.1")
    assert "refused" in check["state"]["message"]
    assert "Traceback" not in team.logs(check)
    listed = bucket.address.client().list_objects_v2(Bucket="scans")
    assert listed["KeyCount"] == len(scan_files("NEW_DS_0005"))
    assert not (team.root / "data/incoming/autumn").exists()


def test_a_killed_flow_is_marked_as_crashed_within_two_minutes(team):
    assert await_end(team, retrainings=4, seconds=130) == "CRASHED"
    crashed = datetime.fromisoformat(team.retrainings()[-1]["end_time"])
    assert (crashed - team.killed).total_seconds() < 120


def test_the_next_run_resumes_and_survives_its_worker_before_and_after_it_began(team):
    reached = team.epochs()
    team.start()
    until(
        lambda: team.retrainings()[-1]["state_type"] == "PENDING",
        seconds=60,
        what="the run is pending",
    )
    team.kill_worker()
    team.up()
    team.await_training(epochs=reached + 1)
    flow = team.flow_process()
    team.kill_worker()
    team.up()
    assert processes.process_identity(flow)
    assert await_end(team, retrainings=5) == "COMPLETED"
    assert f"train: resumes after epoch {reached}" in team.logs(team.retrainings()[-1])
    assert len(team.digests()) == 3


def test_an_s3_server_that_was_down_is_asked_again(team, bucket):
    team.long_training(seed=12)  # for the test that follows
    bucket.stop()
    bucket.login(team.credentials)
    check = team.next_check()
    assert check["state_type"] == "FAILED"
    assert check["state"]["message"].startswith("s3://scans/new: no answer at http://127.0.0.1")
    assert "Traceback" not in team.logs(check)
    bucket.start()
    until((team.root / "data/incoming/autumn").exists, seconds=120, what="the batch is imported")
    assert team.batches()["autumn"]["state"] == "taken"


def test_scans_from_a_bucket_are_judged_although_worker_and_server_went_down(team):
    until(lambda: len(team.retrainings()) == 6, seconds=60, what="a retraining has started")
    team.await_training()
    team.kill_worker()
    team.end_server()
    team.up()
    assert await_end(team, retrainings=6) == "COMPLETED"
    assert "NEW_DS_0005" in team.splits()
    registry = team.registry()
    digests = [version["digest"] for version in registry["versions"]]
    assert len(set(digests)) == len(digests) == 4
    judged = [decision["candidate"]["digest"] for decision in registry["decisions"]]
    assert sorted(judged) == sorted(digests)


def test_down_ends_every_process_of_the_stack(team):
    pids = [team.pid(part) for part in ("Prefect server", "MLflow", "Prefect worker")]
    down = team.stack("down")
    assert down.stdout.startswith("ended: Prefect worker, MLflow, Prefect server")
    assert [processes.process_identity(pid) for pid in pids] == [None] * 3
    assert "nothing was running" in team.stack("down").stdout
