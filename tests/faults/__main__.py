"""Run the fault matrix: `make faults`, or `python -m faults --part disk` in tests/.

Prints a line for each fault. Exit code 1 if one does not hold.
"""

import argparse
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import checkouts

from faults import cases  # noqa: F401 - fills the matrix
from faults.matrix import FAULTS, Result, run_all
from faults.workplace import Workplace

DOCUMENT = checkouts.ROOT / "docs" / "reliability.md"
START, END = "<!-- results: start -->", "<!-- results: end -->"


def main() -> int:
    """Run the chosen faults; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--part", help="only one part: disk, kill, table, server, clock, input")
    parser.add_argument("--only", help="only faults whose name contains this text")
    parser.add_argument("--write", action="store_true", help=f"write the table to {DOCUMENT.name}")
    chosen = parser.parse_args()
    faults = [
        item
        for item in FAULTS
        if (not chosen.part or item.part == chosen.part)
        and (not chosen.only or chosen.only in item.name)
    ]
    if not faults:
        parser.error("no fault has this name or part")
    results = []
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
    failed = sum(result.outcome == "fails" for result in results)
    print(f"{len(results)} faults, {failed} do not hold")
    if chosen.write:
        _write(results)
    return 1 if failed else 0


def _write(results: list[Result]) -> None:
    """Replace the table in docs/reliability.md."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=checkouts.ROOT, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    rows = [
        f"| {r.fault.part} | {r.fault.name} | {r.fault.must_hold} | **{r.outcome}**: "
        f"{r.seen.replace('|', '/')} | {r.seconds:.0f} s |"
        for r in results
    ]
    table = "\n".join(
        [
            f"Measured on {date.today().isoformat()} at commit {commit}.",
            "",
            "| part | what is broken | what must hold | what was seen | time |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )
    DOCUMENT.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
