"""`make bench`: every system in turn, several rounds, medians; one table.

A system runs in a process of its own in each round, so that none keeps memory or threads
from another; rounds alternate between systems, so that a noisy minute hits all of them.
Writes reports/bench.json and the table of docs/benchmarks.md.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from bench.one import systems
from bench.work import BATCH, SIDE, SLICES
from pipeline.network import processor

ROUNDS, STEPS = 3, 4
KINDS = {
    "train": f"training, {SIDE}x{SIDE}, batch {BATCH}",
    "predict": f"prediction, {SIDE}x{SIDE}, batch {BATCH}",
    "segment": f"files to masks on disk, {SIDE}x{SIDE}",
}
NO_PYTORCH = "PyTorch is not installed; `.venv/bin/uv pip install torch` brings it"
PACKAGES = ("tensorflow", "keras", "openvino", "torch", "numpy")
BETWEEN = ("<!-- table -->", "<!-- end of table -->")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def measure(name: str) -> dict[str, list[float]] | str:
    """Images a second of each timed step by kind; a sentence where the system does not run here."""
    command = [sys.executable, "-m", "bench.one", name, str(STEPS)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no output"])[-1]
    seconds = json.loads(done.stdout.strip().splitlines()[-1])["seconds"]
    return {kind: [SLICES[kind] / one for one in own] for kind, own in seconds.items()}


def run(rounds: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of bench.json, and what was left out with its reason."""
    found: dict[tuple[str, str], list[float]] = {}
    left_out = {} if _has("torch") else {n: NO_PYTORCH for n in systems() if "PyTorch" in n}
    for number in range(1, rounds + 1):
        for name in systems():
            speeds = left_out.get(name) or measure(name)
            if isinstance(speeds, str):
                left_out[name] = speeds
                continue
            for kind, own in speeds.items():
                found.setdefault((kind, name), []).extend(own)
            said = ", ".join(
                f"{KINDS[k].partition(',')[0]} {statistics.median(own):.1f}"
                for k, own in speeds.items()
            )
            print(f"round {number} of {rounds}: {name}: {said} images a second", flush=True)
    return _rows(found), left_out


def _rows(found: dict[tuple[str, str], list[float]]) -> list[dict[str, Any]]:
    rows = []
    for kind, label in KINDS.items():
        medians = {name: statistics.median(s) for (k, name), s in found.items() if k == kind}
        best = max((m for name, m in medians.items() if name.startswith("gliaflow")), default=None)
        for name, median in medians.items():
            speeds = found[kind, name]
            spread = {"median": median, "low": min(speeds), "high": max(speeds)}
            rows.append(
                {
                    "work": label,
                    "system": name,
                    "images_per_second": {key: round(one, 2) for key, one in spread.items()},
                    "ratio_to_ours": round(median / best, 3) if best else None,
                }
            )
    return rows


def machine(rounds: int) -> dict[str, Any]:
    """What the numbers were taken on."""
    lines = processor.CPU.read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "?")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in processor.flags()],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES if _has(name)},
        "rounds": rounds,
        "date": date.today().isoformat(),
    }


def table(rows: list[dict[str, Any]], where: dict[str, Any], left_out: dict[str, str]) -> str:
    """The rows as Markdown, with the machine below."""
    lines = ["| work | system | images a second: median (lowest to highest) | of our best |"]
    lines.append("|---|---|---|---|")
    for row in rows:
        speed = row["images_per_second"]
        lines.append(
            f"| {row['work']} | {row['system']} | {speed['median']:.1f} "
            f"({speed['low']:.1f} to {speed['high']:.1f}) | {row['ratio_to_ours']:.2f} |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    lines += [
        "",
        f"{where['date']}, {where['cpu']} with {where['cores']} cores ({', '.join(where['flags'])}), "
        f"Python {where['python']}, {versions}; rounds: {where['rounds']}, of {STEPS} steps each.",
    ]
    lines += [f"Left out: {name}: {why}." for name, why in left_out.items()]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or not all(one.isdigit() and int(one) for one in arguments):
        print("usage: python -m bench [ROUNDS]", file=sys.stderr)
        return 2
    rounds = int(arguments[0]) if arguments else ROUNDS
    rows, left_out = run(rounds)
    where = machine(rounds)
    Path("reports").mkdir(exist_ok=True)
    text = json.dumps({"machine": where, "rows": rows, "left_out": left_out}, indent=2)
    Path("reports/bench.json").write_text(text + "\n")
    page = Path("docs/benchmarks.md")
    before, _, rest = page.read_text().partition(BETWEEN[0])
    after = rest.partition(BETWEEN[1])[2]
    found = table(rows, where, left_out)
    page.write_text(f"{before}{BETWEEN[0]}\n{found}\n{BETWEEN[1]}{after}")
    print(f"\n{found}\n\nWritten: reports/bench.json, docs/benchmarks.md")
    return 0


def _has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
