"""The event loop of the Prefect server goes on where a cursor ends late."""

import gc
import sqlite3
import subprocess
import sys
import threading
import time

from flows import prefect_server

SECONDS_TO_WAIT = 8  # for the write lock; Prefect's own is 60


def wait_for_a_lock_that_this_thread_holds(path: str) -> None:
    """Write on two connections at once, as the server does, and leave a cursor to the collector.

    Raises:
        sqlite3.OperationalError: the second never had the lock, since this thread stood still.
    """
    first, second = (
        sqlite3.connect(
            path, timeout=SECONDS_TO_WAIT, isolation_level=None, check_same_thread=False
        )
        for _ in range(2)
    )
    first.execute("PRAGMA journal_mode = WAL")
    first.execute("CREATE TABLE kept (number)")
    left = [second.execute("SELECT 1")]
    left.append(left)
    del left
    first.execute("BEGIN IMMEDIATE")
    failed: list[Exception] = []

    def write() -> None:
        try:
            second.execute("INSERT INTO kept VALUES (2)")
        except sqlite3.OperationalError as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.5)
    _ = [[] for _ in range(5 * gc.get_threshold()[0])]  # the collector's turn
    time.sleep(2 * prefect_server.SECONDS_BETWEEN)
    first.execute("COMMIT")
    writer.join()
    if failed:
        raise failed[0]


def test_the_thread_that_holds_the_lock_goes_on(tmp_path):
    done = subprocess.run(
        [sys.executable, __file__, tmp_path / "kept.db"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    prefect_server.collect_beside()
    wait_for_a_lock_that_this_thread_holds(sys.argv[1])
