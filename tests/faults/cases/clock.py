"""Clocks that jump."""

import sqlite3

from faults.matrix import fault
from faults.workplace import Workplace


@fault(
    "clock", "set back between two decisions", must_hold="decisions stay in order", is_short=True
)
def clock_set_back(place: Workplace) -> str:
    with sqlite3.connect(place.root / "mlflow.db") as database:  # as if decided in a year's time
        later = 365 * 24 * 3600 * 1000
        database.execute("UPDATE runs SET start_time = start_time + ?", (later,))
    database.close()
    done = place.call("gliaflow", "promote", "1", "--override", "agreed", "--by", "Ada Roe")
    assert done.returncode == 0, done.stderr
    newest = place.registry()["decisions"][0]
    assert newest["why"] == "agreed", newest
    return "the later decision is the newest, under an earlier time"
