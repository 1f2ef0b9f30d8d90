"""A verdict that waits for a person, on a real stack."""

import json

import checkouts
import pytest
import teams

pytestmark = pytest.mark.slow


@pytest.fixture
def team(tmp_path):
    """A checkout with its stack up, whose gate leaves every promotion to a person."""
    team = teams.Team(tmp_path / "team")
    checkouts.change(team.root, gate={"approval": "always"})
    team.up()
    yield team
    team.stack("down")


def registry(team: teams.Team) -> dict:
    done = checkouts.call(team.root, "gliaflow", "registry", "--json")
    return json.loads(done.stdout)


def waiting(team: teams.Team) -> list[dict]:
    """Return the runs of `approve` that are suspended."""
    body = {"flows": {"name": {"any_": ["approve"]}}}
    runs = team.api("flow_runs/filter", body)
    return [run for run in runs if run["state_name"] == "Suspended"]


def test_a_person_answers_in_prefect_while_nothing_is_held(team):
    team.start()
    assert teams.until(
        lambda: team.final_state(retrainings=1), seconds=400, what="the retraining has ended"
    ) == "COMPLETED"  # fmt: skip
    (run,) = teams.until(lambda: waiting(team), seconds=120, what="the run waits for a person")
    assert registry(team)["champion"] is None
    team.start()  # the suspended run holds neither the worker nor the checkout
    assert teams.until(
        lambda: team.final_state(retrainings=2), seconds=300, what="another one has ended"
    ) == "COMPLETED"  # fmt: skip
    assert [waits["id"] for waits in waiting(team)] == [run["id"]]
    answer = {"promote": True, "name": "Dr Ada Roe", "reason": "agreed on 12 May"}
    answered = team.api(f"flow_runs/{run['id']}/resume", {"run_input": answer})
    assert answered["status"] == "ACCEPT"
    teams.until(lambda: registry(team)["champion"] == 1, seconds=200, what="the version is in use")
    last = registry(team)["decisions"][0]
    assert (last["action"], last["who"], last["why"]) == (
        "approve", "Dr Ada Roe", "agreed on 12 May",
    )  # fmt: skip
