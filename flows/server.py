"""Start the Prefect server of `make up` with garbage collection in a thread.

With SQLite, `prefect server start` may stop responding for up to a minute. The garbage collector
can run inside the event loop and finalise a cursor whose connection is waiting for the write
lock; the event loop then waits too. The holder of that lock needs the event loop to release it,
so both wait until SQLite's timeout of 60 s, and the waiting write fails. A collector thread
waits without blocking the event loop.
"""

import gc
import itertools
import runpy
import sys
import threading
import time

SECONDS_BETWEEN = 1
ROUNDS_PER_FULL_COLLECTION = 30  # a full collection takes a quarter of a second


def collect_beside() -> None:
    """Turn automatic garbage collection off, and collect in a daemon thread from now on."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    for rounds in itertools.count(1):
        time.sleep(SECONDS_BETWEEN)
        gc.collect(1 if rounds % ROUNDS_PER_FULL_COLLECTION else 2)


if __name__ == "__main__":
    collect_beside()
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
