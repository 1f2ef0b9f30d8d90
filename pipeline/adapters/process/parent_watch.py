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
STAGE_ENDS = "gliaflow: the flow that started this stage is gone; the stage ends\n"


def end_with_parent(*, message: str = STAGE_ENDS) -> None:
    """End this process after the one named in `VARIABLE`; do nothing where it is unset.

    Args:
        message: for standard error; empty: none.
    """
    parent = os.environ.get(VARIABLE)
    if parent:
        threading.Thread(target=_watch, args=(parent, message), daemon=True).start()


def _watch(parent: str, message: str) -> None:
    while processes.is_running(parent):
        time.sleep(SECONDS_BETWEEN_CHECKS)
    os.write(2, message.encode())
    os._exit(1)
