"""Garbage collection in a thread does not block a thread that holds the write lock."""

import gc
import sqlite3
import subprocess
import sys
import threading
import time

from flows import server

SECONDS_TO_WAIT = 8  # for the write lock; Prefect waits 60


def write_while_this_thread_holds_the_lock(path: str) -> None:
    """Write on two connections at once, as the server does, and leave a cursor as garbage.

    Raises:
        sqlite3.OperationalError: the second connection never got the lock, since this thread
            was blocked.
    """
    first, second = (
        sqlite3.connect(
            path, timeout=SECONDS_TO_WAIT, isolation_level=None, check_same_thread=False
        )
        for _ in range(2)
    )
    first.execute("PRAGMA journal_mode = WAL")
    first.execute("CREATE TABLE rows (number)")
    garbage = [second.execute("SELECT 1")]
    garbage.append(garbage)  # a cycle: only the collector frees it
    del garbage
    first.execute("BEGIN IMMEDIATE")
    errors: list[Exception] = []

    def write() -> None:
        try:
            second.execute("INSERT INTO rows VALUES (2)")
        except sqlite3.OperationalError as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.5)
    _ = [[] for _ in range(5 * gc.get_threshold()[0])]  # makes automatic collection run
    time.sleep(2 * server.SECONDS_BETWEEN)
    first.execute("COMMIT")
    writer.join()
    if errors:
        raise errors[0]


def test_the_thread_that_holds_the_lock_is_not_blocked(tmp_path):
    done = subprocess.run(
        [sys.executable, __file__, tmp_path / "server.db"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    server.collect_beside()
    write_while_this_thread_holds_the_lock(sys.argv[1])
