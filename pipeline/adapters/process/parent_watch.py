"""End a stage when the flow that started it is gone.

Killing a flow leaves its children running: DVC, the stage, the training. Each stage checks
from a thread whether the process named in the environment still runs.
"""

import os
import threading
import time

from pipeline.adapters.process import processes

VARIABLE = "GLIAFLOW_FLOW"
SECONDS_BETWEEN_CHECKS = 2.0


def end_with_parent() -> None:
    """End this process after the one named in `VARIABLE`; do nothing where it is unset."""
    parent = os.environ.get(VARIABLE)
    if parent:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: str) -> None:
    while processes.is_running(parent):
        time.sleep(SECONDS_BETWEEN_CHECKS)
    os.write(2, b"gliaflow: the flow that started this stage is gone; the stage ends\n")
    os._exit(1)
