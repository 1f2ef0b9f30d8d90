"""The decisions on a model in order: one MLflow run each, in a separate experiment.

A decision is written before anything moves (`intent`) and marked afterwards (`done`). One whose
process died in between is settled by whoever comes next: `done` if the champion was moved, else
`void`. Records are only ever added, and only completed ones are decisions.
"""

import datetime
import json
import time
from dataclasses import replace
from typing import Any

from pipeline.adapters.tracking import mlflow_client
from pipeline.domain.decisions import DecisionRecord
from pipeline.errors import GliaflowError

DECISION_TAG = "gliaflow.decision"
NUMBER_TAG = "gliaflow.number"
STATE_TAG = "gliaflow.state"
SETTLED_AT_TAG = "gliaflow.settled_at"
INTENT, DONE, VOID = "intent", "done", "void"
MAX_TAG_LENGTH = 7_500  # MLflow refuses tags of more than 8000 characters


class DecisionLog:
    """The decisions on one model.

    Args:
        client: of MLflow.
        name: of the experiment.
    """

    def __init__(self, client: Any, name: str):
        self._client = client
        self._name = name

    def decisions(self) -> list[DecisionRecord]:
        """Return all completed decisions, newest first, without the scores of patients.

        Raises:
            GliaflowError: a record cannot be read.
        """
        return [_decision(run) for run in self._runs() if _state(run) == DONE]

    def full(self, number: int) -> DecisionRecord:
        """Return a completed decision with the scores of patients, from its file.

        Raises:
            GliaflowError: there is no such decision, or it cannot be read.
        """
        for run in self._runs():
            if _number(run) == number and _state(run) == DONE:
                return _full_decision(run.info.run_id)
        raise GliaflowError(f"decision {number} is not recorded; `gliaflow registry` lists them")

    def next_number(self) -> int:
        """Return the number after the last settled decision."""
        return 1 + max((_number(run) for run in self._runs() if _state(run) != INTENT), default=0)

    def write_intent(self, decision: DecisionRecord) -> str:
        """Write a decision before it takes effect; return the id of its run."""
        values = decision.to_json()
        run_id = self._create(
            f"version {decision.candidate.version}: {decision.verdict}",
            number=decision.number or 0,
            state=INTENT,
            tags={
                DECISION_TAG: _short(values),
                "gliaflow.version": str(decision.candidate.version),
            },
        )
        self._client.log_dict(run_id, values, "decision.json")
        return run_id

    def finish(self, run_id: str, state: str) -> None:
        """Mark a decision as `done` or `void`."""
        self._client.set_tag(run_id, SETTLED_AT_TAG, _now())
        self._client.set_tag(run_id, STATE_TAG, state)
        self._client.set_terminated(run_id, "FINISHED" if state == DONE else "KILLED")

    def unsettled(self, number: int) -> tuple[str, DecisionRecord] | None:
        """Return the id and content of a decision that was begun and not settled."""
        for run in self._runs():
            if _number(run) == number and _state(run) == INTENT:
                return run.info.run_id, _decision(run)
        return None

    def write_void(self, number: int) -> None:
        """Use up the number of a decision whose process died before it wrote anything."""
        run_id = self._create(f"decision {number}: void", number=number, state=VOID, tags={})
        self.finish(run_id, VOID)

    def _create(self, name: str, *, number: int, state: str, tags: dict[str, str]) -> str:
        experiment = mlflow_client.experiment_id(self._client, self._name)
        run = self._client.create_run(
            experiment,
            start_time=self._next_start(),
            run_name=name,
            tags={STATE_TAG: state, NUMBER_TAG: str(number), **tags},
        )
        return str(run.info.run_id)

    def _next_start(self) -> int:
        """Return the start of the next run, in ms since 1970.

        MLflow lists runs in this order: it never goes back, even if the clock was set back.
        """
        newest = [int(run.info.start_time) for run in self._runs()[:1]]
        return max([int(time.time() * 1000), *(start + 1 for start in newest)])

    def _runs(self) -> list[Any]:
        """Return the runs of all records, newest first."""
        experiment = self._client.get_experiment_by_name(self._name)
        if experiment is None:
            return []
        runs = mlflow_client.all_runs(
            self._client, experiment.experiment_id, order_by="attributes.start_time DESC"
        )
        return sorted(runs, key=_number, reverse=True)


def _short(values: dict[str, Any]) -> str:
    """Return a decision as JSON that fits into a tag: without the scores of patients.

    Without those of groups, too, if there are many. The file decision.json has all.
    """
    comparison = values["comparison"]
    if comparison:
        values = values | {"comparison": comparison | {"patients": []}}
        if len(json.dumps(values)) > MAX_TAG_LENGTH:
            values["comparison"] |= {"groups": []}
    return json.dumps(values)


def _state(run: Any) -> str:
    """Return the state of a record; one that states none is no decision that was completed."""
    state = run.data.tags.get(STATE_TAG)
    if state not in (INTENT, DONE, VOID):
        raise GliaflowError(
            f"the decision record of MLflow run {run.info.run_id} has the state {state!r}; expected "
            f"{INTENT}, {DONE} or {VOID}: look at the run's tag {STATE_TAG}"
        )
    return str(state)


def _number(run: Any) -> int:
    try:
        return int(run.data.tags[NUMBER_TAG])
    except (KeyError, ValueError) as error:
        raise GliaflowError(
            f"the decision record of MLflow run {run.info.run_id} has no number ({error!r}); "
            f"expected one that gliaflow wrote: look at the run's tag {NUMBER_TAG}"
        ) from error


def _decision(run: Any) -> DecisionRecord:
    """Read the decision record of an MLflow run."""
    try:
        record = DecisionRecord.from_json(json.loads(run.data.tags[DECISION_TAG]))
        return replace(record, number=_number(run))
    except (KeyError, TypeError, ValueError) as error:
        raise GliaflowError(
            f"the decision record of MLflow run {run.info.run_id} cannot be read ({error!r}); "
            f"expected one that gliaflow wrote: look at the run's tag {DECISION_TAG}"
        ) from error


def _full_decision(run_id: str) -> DecisionRecord:
    import mlflow

    try:
        return DecisionRecord.from_json(mlflow.artifacts.load_dict(f"runs:/{run_id}/decision.json"))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise GliaflowError(
            f"decision.json of MLflow run {run_id} cannot be read ({error!r}); restore MLflow's "
            "files from a backup"
        ) from error


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
