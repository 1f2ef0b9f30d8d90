"""Turns: one decision at a time among all machines that share an MLflow.

MLflow has no lock, and an alias is moved by whoever writes last. But the name of a registered
model is unique, in SQLite and Postgres alike, and creating one either succeeds or fails. So
decision N is made by whoever creates the model `NAME.decision-N`, which is deleted afterwards.

The number makes it safe to take over from a process that died: a claim is only ever removed
after decision N was settled, and then nobody needs the name again. Knows nothing of decisions.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.adapters.process import processes
from pipeline.errors import GliaflowError

HOLDER_TAG = "gliaflow.holder"
SECONDS_BETWEEN = 0.2
LEASE_SECONDS = 60  # a holder elsewhere that is silent for this long is taken for dead


class Turns:
    """Numbered turns of one model.

    Args:
        client: of MLflow.
        model: name of the registered model.
        next_number: returns the number after the last settled decision.
        settle: makes decision N complete or void if it was begun; else does nothing.
        void: uses up number N. Both may be called for the same number by several processes at
            once.
    """

    def __init__(
        self,
        client: Any,
        model: str,
        *,
        next_number: Callable[[], int],
        settle: Callable[[int], None],
        void: Callable[[int], None],
    ):
        self._client = client
        self._model = model
        self._next_number = next_number
        self._settle = settle
        self._void = void

    @contextmanager
    def hold(self, *, say: Callable[[str], None]) -> Iterator["Turn"]:
        """Wait for the next turn and hold it.

        Args:
            say: receives a message if another process holds the turn.
        """
        turn = self._take(say)
        try:
            yield turn
        finally:
            self._remove(turn.number)

    def _take(self, say: Callable[[str], None]) -> "Turn":
        """Claim the first number that is free, settling those of processes that died."""
        watch = _Watch(say)
        while True:
            number = self._next_number()
            turn = Turn(self._client, self._claim(number), number, _holder())
            if not turn.create():
                self._wait_for(turn, watch)
            elif self._next_number() != number:  # it was settled while we claimed it
                self._remove(number)
            else:
                # Without a claim somebody may have begun it and died.
                self._settle(number)
                if self._next_number() == number:
                    return turn
                self._remove(number)

    def _wait_for(self, turn: "Turn", watch: "_Watch") -> None:
        holder = turn.current_holder()
        if holder is None:
            return
        if _is_dead(holder) or watch.silent_seconds(holder) > LEASE_SECONDS:
            self._settle(turn.number)
            if self._next_number() == turn.number:  # it died before it wrote anything
                self._void(turn.number)
            self._remove(turn.number)
        else:
            time.sleep(SECONDS_BETWEEN)

    def _claim(self, number: int) -> str:
        return f"{self._model}.decision-{number}"

    def _remove(self, number: int) -> None:
        from mlflow.exceptions import MlflowException

        # Somebody else removed it, or MLflow fails: nobody waits for a decision that is settled.
        with suppress(MlflowException):
            self._client.delete_registered_model(self._claim(number))


class Turn:
    """The right to make decision `number`, if `create` succeeded."""

    def __init__(self, client: Any, name: str, number: int, holder: str):
        self._client = client
        self._name = name
        self.number = number
        self._holder = holder

    def create(self) -> bool:
        """Claim the turn; return whether it is ours."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(
                self._name,
                tags={HOLDER_TAG: self._holder},
                description="A decision is being made; removed when it is recorded.",
            )
        except MlflowException as error:
            # MLflow looks at the one that exists, which may just have been removed.
            if error.error_code in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                return False
            raise
        return True

    def current_holder(self) -> str | None:
        """Return who holds the turn; None if nobody does."""
        from mlflow.exceptions import MlflowException

        try:
            model = self._client.get_registered_model(self._name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return str(model.tags.get(HOLDER_TAG, ""))

    def check(self) -> None:
        """Make sure that nobody took the turn over.

        Raises:
            GliaflowError: somebody did, since this process was silent for too long.
        """
        if self.current_holder() != self._holder:
            raise GliaflowError(
                f"this process was silent for more than {LEASE_SECONDS} s while it made decision "
                f"{self.number}, and another one settled it; run the same command again"
            )


class _Watch:
    """How long the same holder has been seen, by this process's own clock."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self._holder = ""
        self._since = 0.0

    def silent_seconds(self, holder: str) -> float:
        now = time.monotonic()
        if holder != self._holder:
            if not self._holder:
                self._say(f"another decision is being recorded ({_describe(holder)}); waiting")
            self._holder, self._since = holder, now
        return now - self._since


def _holder() -> str:
    """Describe this process, and this turn of it."""
    return json.dumps(
        {
            "machine": _machine(),
            "process": processes.process_identity(os.getpid()),
            "host": os.uname().nodename,
            "turn": uuid.uuid4().hex,
        }
    )


def _machine() -> str:
    """Name the space in which process ids have a meaning: this boot and this container."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    try:
        return f"{boot.read_text().strip()}/{namespace.readlink()}"
    except OSError:
        return str(uuid.getnode())


def _is_dead(holder: str) -> bool:
    """Whether a holder is a process of this machine that no longer runs."""
    try:
        values = json.loads(holder)
        return values["machine"] == _machine() and not processes.is_running(values["process"])
    except (ValueError, KeyError, TypeError):
        return False


def _describe(holder: str) -> str:
    try:
        values = json.loads(holder)
        return f"process {values['process'].partition(':')[0]} on {values['host']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "unknown process"
