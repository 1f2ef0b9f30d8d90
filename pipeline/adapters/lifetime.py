"""A stage that a flow started ends when the flow's process is gone.

Killing a flow leaves what it started running: DVC, the stage, the training. Each stage
looks after its flow by process id and start time, since ids are used again.
"""

import os
import threading
import time
from pathlib import Path

VARIABLE = "GLIAFLOW_FLOW"
SECONDS_BETWEEN_LOOKS = 2.0


def identity(pid: int) -> str | None:
    """`pid:start` of a living process, None where it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{pid}:{fields[19]}"


def end_with_flow() -> None:
    """Watch the flow named in the environment from a thread; end this process after it."""
    flow = os.environ.get(VARIABLE)
    if flow:
        threading.Thread(target=_watch, args=(flow,), daemon=True).start()


def _watch(flow: str) -> None:
    pid = int(flow.partition(":")[0])
    while identity(pid) == flow:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.write(2, b"gliaflow: the flow that started this stage is gone; it ends\n")
    os._exit(1)
