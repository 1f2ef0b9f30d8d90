"""`make bench`: time every system in turn over several rounds, and write one table of medians.

In each round every system runs in its own process, so that none keeps memory or threads from
another. Rounds alternate between systems, so that a slow minute of the machine affects all.
Writes reports/bench.json and the table in docs/benchmarks.md.
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

from bench.cpu.one_system import systems
from bench.workload import BATCH, SIDE, SLICES
from pipeline.errors import GliaflowError
from pipeline.network import processor

ROUNDS, STEPS = 3, 4
LABELS = {
    "train": f"training, {SIDE}x{SIDE}, batch {BATCH}",
    "predict": f"prediction, {SIDE}x{SIDE}, batch {BATCH}",
    "segment": f"files to masks on disk, {SIDE}x{SIDE}",
}
NO_PYTORCH = "PyTorch is not installed; run `.venv/bin/uv pip install torch`"
PACKAGES = ("tensorflow", "keras", "openvino", "torch", "numpy")
MARKERS = ("<!-- table -->", "<!-- end of table -->")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")

Speeds = dict[tuple[str, str], list[float]]  # images per second of each step, by (kind, system)


def measure(name: str) -> dict[str, list[float]]:
    """Time one system; return images per second of each step, by kind of work.

    Raises:
        GliaflowError: the system does not run here.
    """
    command = [sys.executable, "-m", "bench.cpu.one_system", name, str(STEPS)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise GliaflowError((done.stderr.strip().splitlines() or ["no output"])[-1])
    seconds_by_kind = json.loads(done.stdout.strip().splitlines()[-1])["seconds"]
    return {kind: [SLICES[kind] / s for s in times] for kind, times in seconds_by_kind.items()}


def run(rounds: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Time all systems.

    Returns:
        Rows of bench.json, and the reason why a system was left out, by name.
    """
    collected: Speeds = {}
    left_out = (
        {} if _is_installed("torch") else {n: NO_PYTORCH for n in systems() if "PyTorch" in n}
    )
    for number in range(1, rounds + 1):
        for name in systems():
            if name in left_out:
                continue
            try:
                speeds = measure(name)
            except GliaflowError as error:
                left_out[name] = str(error)
                continue
            for kind, values in speeds.items():
                collected.setdefault((kind, name), []).extend(values)
            print(f"round {number} of {rounds}: {name}: {_summary(speeds)}", flush=True)
    return rows_of(collected), left_out


def _summary(speeds: dict[str, list[float]]) -> str:
    medians = (
        f"{LABELS[kind].partition(',')[0]} {statistics.median(values):.1f}"
        for kind, values in speeds.items()
    )
    return f"{', '.join(medians)} images per second"


def rows_of(collected: Speeds) -> list[dict[str, Any]]:
    """Return a row per kind of work and system; ratios are to gliaflow's fastest."""
    rows = []
    for kind, label in LABELS.items():
        medians = {
            n: statistics.median(values) for (k, n), values in collected.items() if k == kind
        }
        best = max((m for name, m in medians.items() if name.startswith("gliaflow")), default=None)
        for name, median in medians.items():
            values = collected[kind, name]
            spread = {"median": median, "low": min(values), "high": max(values)}
            rows.append(
                {
                    "work": label,
                    "system": name,
                    "images_per_second": {key: round(value, 2) for key, value in spread.items()},
                    "ratio_to_ours": round(median / best, 3) if best else None,
                }
            )
    return rows


def machine(rounds: int) -> dict[str, Any]:
    """Describe the machine and the software that the numbers were taken on."""
    lines = processor.CPU.read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "?")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in processor.flags()],
        "python": platform.python_version(),
        "versions": {n: importlib.metadata.version(n) for n in PACKAGES if _is_installed(n)},
        "rounds": rounds,
        "date": date.today().isoformat(),
    }


def table(rows: list[dict[str, Any]], where: dict[str, Any], left_out: dict[str, str]) -> str:
    """Return the rows as Markdown, with the machine and what was left out below.

    Args:
        where: as `machine` returns it.
    """
    lines = ["| work | system | images per second: median (lowest to highest) | of our best |"]
    lines.append("|---|---|---|---|")
    for row in rows:
        speed, ratio = row["images_per_second"], row["ratio_to_ours"]
        lines.append(
            f"| {row['work']} | {row['system']} | {speed['median']:.1f} "
            f"({speed['low']:.1f} to {speed['high']:.1f}) | "
            f"{'' if ratio is None else f'{ratio:.2f}'} |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    lines += [
        "",
        f"{where['date']}, {where['cpu']} with {where['cores']} cores ({', '.join(where['flags'])}), "
        f"Python {where['python']}, {versions}; {where['rounds']} rounds of {STEPS} steps each.",
    ]
    lines += [f"Left out: {name}: {why}." for name, why in left_out.items()]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run the benchmark and write its files; return the exit code."""
    if len(arguments) > 1 or not all(word.isdigit() and int(word) for word in arguments):
        print("usage: python -m bench.cpu [ROUNDS]", file=sys.stderr)
        return 2
    rounds = int(arguments[0]) if arguments else ROUNDS
    rows, left_out = run(rounds)
    where = machine(rounds)
    Path("reports").mkdir(exist_ok=True)
    text = json.dumps({"machine": where, "rows": rows, "left_out": left_out}, indent=2)
    Path("reports/bench.json").write_text(text + "\n")
    page, markdown = Path("docs/benchmarks.md"), table(rows, where, left_out)
    before, _, rest = page.read_text().partition(MARKERS[0])
    after = rest.partition(MARKERS[1])[2]
    page.write_text(f"{before}{MARKERS[0]}\n{markdown}\n{MARKERS[1]}{after}")
    print(f"\n{markdown}\n\nWritten: reports/bench.json, docs/benchmarks.md")
    return 0


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
