"""Kill a command with SIGKILL at moments that are spread evenly over its duration."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass

from faults.workplace import RUN_MARK, Workplace, until
from pipeline.adapters.process import processes

SECONDS_TO_END = 60  # servers and stages notice within seconds that their parent is gone


@dataclass
class Victim:
    """A command to kill again and again.

    command: a module and its arguments. ready: text that it prints before its real work; moments
    count from there. Empty: from its start. moments: of all kills. seconds: from `ready` to the
    end, measured. kills, landed: so far, and those before the command had ended.
    """

    place: Workplace
    command: tuple[str, ...]
    moments: int
    ready: str = ""
    seconds: float = 0
    kills: int = 0
    landed: int = 0

    def measure(self) -> None:
        """Run the command to its end; note how long it takes."""
        process = self._start()
        began = time.monotonic()
        process.wait(timeout=600)
        self.seconds = time.monotonic() - began
        assert process.returncode == 0, self.output()

    def kill(self, moment: int) -> None:
        """Start the command, kill it at a moment of its duration, and see that nothing is left.

        Args:
            moment: 0 to moments - 1, in the order of time.
        """
        process = self._start()
        self.kills += 1
        try:
            process.wait(timeout=(moment + 0.5) / self.moments * self.seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.landed += 1
        assert "Traceback" not in self.output(), self.output()
        self._await_no_process()

    def again(self) -> str:
        """Run the same command to its end; return what it printed."""
        done = self.place.call(*self.command)
        assert done.returncode == 0, done.stdout[-800:] + done.stderr[-800:]
        return done.stdout

    def seen(self) -> str:
        return f"{self.landed} of {self.kills} kills landed, within {self.seconds:.0f} s"

    def output(self) -> str:
        return (self.place.folder / "killed.log").read_text(errors="replace")

    def _start(self) -> subprocess.Popen[bytes]:
        process = self.place.start(*self.command, log=self.place.folder / "killed.log")
        if self.ready:
            until(
                lambda: self.ready in self.output() or process.poll() is not None,
                seconds=180,
                what=self.ready,
            )
        return process

    def _await_no_process(self) -> None:
        until(
            lambda: not processes.with_variable(RUN_MARK, str(self.place.root)),
            seconds=SECONDS_TO_END,
            what="every process that the killed command had started has ended",
        )
