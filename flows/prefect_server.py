"""The Prefect server of `make up`: `prefect server start`, its garbage collected beside its loop.

On SQLite that server may answer nothing for a minute at a time. Wherever the garbage collector
happens to run in the event loop, it may end a cursor of a connection whose thread waits for the
write lock, and waits with it; whoever holds that lock needs the loop to give it back. SQLite ends
this after 60 s, and what had waited has failed. A thread that collects waits alone.
"""

import gc
import itertools
import runpy
import sys
import threading
import time

SECONDS_BETWEEN = 1
ROUNDS_TO_ALL = 30  # old objects are many: a quarter of a second


def collect_beside() -> None:
    """Collect garbage in a thread of its own from now on, and nowhere else."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    for rounds in itertools.count(1):
        time.sleep(SECONDS_BETWEEN)
        gc.collect(1 if rounds % ROUNDS_TO_ALL else 2)


if __name__ == "__main__":
    collect_beside()
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
