"""The CPU benchmark: what the table counts, and how it reports systems that did not run."""

import json
import subprocess
import sys
from pathlib import Path

from bench.cpu import __main__ as benchmark
from bench.cpu.one_system import systems

ROOT = Path(__file__).parents[2]
MACHINE = {
    "cpu": "one",
    "cores": 2,
    "flags": ["avx2"],
    "python": "3.11",
    "versions": {"numpy": "2"},
    "rounds": 3,
    "date": "2026-11-22",
}


def test_ratios_refer_to_the_fastest_gliaflow_row():
    collected = {
        ("train", "gliaflow bfloat16"): [9.0, 10.0, 12.0],
        ("train", "gliaflow float32"): [5.0],
        ("train", "PyTorch eager"): [2.0, 4.0],
        ("predict", "gliaflow float32"): [20.0],
    }
    rows = {(row["work"][:5], row["system"]): row for row in benchmark.rows_of(collected)}
    best = rows["train", "gliaflow bfloat16"]
    assert best["images_per_second"] == {"median": 10.0, "low": 9.0, "high": 12.0}
    assert best["ratio_to_ours"] == 1.0
    assert rows["train", "gliaflow float32"]["ratio_to_ours"] == 0.5
    assert rows["train", "PyTorch eager"]["ratio_to_ours"] == 0.3
    assert rows["predi", "gliaflow float32"]["ratio_to_ours"] == 1.0


def test_the_table_names_the_machine_and_the_systems_that_were_left_out():
    rows = benchmark.rows_of({("train", "gliaflow float32"): [5.0]})
    text = benchmark.table(rows, MACHINE, {"PyTorch eager": "not installed"})
    assert "| training, 256x256, batch 16 | gliaflow float32 | 5.0 (5.0 to 5.0) | 1.00 |" in text
    assert "one with 2 cores (avx2), Python 3.11, numpy 2" in text
    assert "Left out: PyTorch eager: not installed." in text


def test_without_a_gliaflow_row_the_table_has_no_ratios():
    rows = benchmark.rows_of({("train", "PyTorch eager"): [5.0]})
    text = benchmark.table(rows, MACHINE, {})
    assert "| training, 256x256, batch 16 | PyTorch eager | 5.0 (5.0 to 5.0) |  |" in text


def test_one_system_prints_seconds_and_parameters_as_json():
    command = [sys.executable, "-m", "bench.cpu.one_system", "gliaflow float32", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["seconds"].keys() == {"train", "predict", "segment"}
    assert all(len(times) == 1 and times[0] > 0 for times in result["seconds"].values())
    assert result["parameters"] == 1_210_513


def test_gliaflow_is_timed_first():
    assert list(systems())[:2] == ["gliaflow bfloat16", "gliaflow float32"]
