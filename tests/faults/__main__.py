"""Run the fault matrix: `make faults`, or `python -m faults --part disk` in tests/.

Prints a line for each fault. Exit code 1 if one does not hold.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import get_args

import checkouts

from faults import cases  # noqa: F401 - fills the matrix
from faults.matrix import FAULTS, Part, Result, run_all
from faults.workplace import Workplace

DOCUMENT = checkouts.ROOT / "docs" / "reliability.md"
START, END = "<!-- results: start -->", "<!-- results: end -->"
MAX_SEEN = 200  # characters in the table; the terminal shows all


def main() -> int:
    """Run the chosen faults; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--part", choices=get_args(Part), help="only one part")
    parser.add_argument("--only", help="only faults whose name contains this text")
    parser.add_argument("--skip", help="no faults whose name contains this text")
    parser.add_argument("--write", action="store_true", help=f"write the table to {DOCUMENT.name}")
    chosen = parser.parse_args()
    faults = [
        item
        for item in FAULTS
        if (not chosen.part or item.part == chosen.part)
        and (not chosen.only or chosen.only in item.name)
        and (not chosen.skip or chosen.skip not in item.name)
    ]
    if not faults:
        parser.error("no fault has this name or part")
    results = []
    start, commit = time.monotonic(), _commit()
    with tempfile.TemporaryDirectory(prefix="gliaflow-faults-") as folder:
        print("a first run, to break later ...", flush=True)
        place = Workplace(Path(folder))
        for result in run_all(faults, place):
            results.append(result)
            print(
                f"{result.outcome:8} {result.seconds:5.0f} s  {result.fault.part}: "
                f"{result.fault.name}: {result.seen}",
                flush=True,
            )
            if chosen.write:  # each time: a run that is cut off leaves what it has seen
                _write(
                    results, planned=len(faults), commit=commit, seconds=time.monotonic() - start
                )
    failed = sum(result.outcome == "fails" for result in results)
    print(f"{len(results)} faults, {failed} do not hold")
    return 1 if failed else 0


def _commit() -> str:
    """Return the commit whose code is run."""
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=checkouts.ROOT, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip


def _write(results: list[Result], *, planned: int, commit: str, seconds: float) -> None:
    """Replace the table in docs/reliability.md.

    Args:
        planned: number of faults that were chosen. commit: whose code was run. seconds: of all faults together, with the run that they start from.
    """
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    lines = [
        f"Measured on {date.today().isoformat()} at commit {commit}, on {os.cpu_count()} processor "
        f"cores: {len(results)} of {planned} chosen faults in {seconds / 60:.0f} minutes; there are "
        f"{len(FAULTS)}.",
        "",
        "| part | what is broken | what must hold | what was seen | time |",
        "|---|---|---|---|---|",
        *map(_row, results),
    ]
    table = "\n".join(lines)
    DOCUMENT.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")


def _row(result: Result) -> str:
    """Return a row of the table; what was seen is cut to a readable length."""
    item, seen = result.fault, result.seen.replace("|", "/")
    if len(seen) > MAX_SEEN:
        seen = f"{seen[:MAX_SEEN].rpartition(' ')[0]} ..."
    return (
        f"| {item.part} | {item.name} | {item.must_hold} | **{result.outcome}**: {seen} | "
        f"{result.seconds:.0f} s |"
    )


if __name__ == "__main__":
    sys.exit(main())
