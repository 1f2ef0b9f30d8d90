"""The speed table: what is counted, and how a missing system is told."""

import json
import subprocess
import sys

import checkouts

from bench import __main__ as table_of
from bench.one import systems

WHERE = {
    "cpu": "one",
    "cores": 2,
    "flags": ["avx2"],
    "python": "3.11",
    "versions": {"numpy": "2"},
    "rounds": 3,
    "date": "2026-11-22",
}


def test_ratios_are_to_the_fastest_of_our_own():
    found = {
        ("train", "gliaflow bfloat16"): [9.0, 10.0, 12.0],
        ("train", "gliaflow float32"): [5.0],
        ("train", "PyTorch eager"): [2.0, 4.0],
        ("predict", "gliaflow float32"): [20.0],
    }
    rows = {(row["work"][:5], row["system"]): row for row in table_of._rows(found)}
    best = rows["train", "gliaflow bfloat16"]
    assert best["images_per_second"] == {"median": 10.0, "low": 9.0, "high": 12.0}
    assert best["ratio_to_ours"] == 1.0
    assert rows["train", "gliaflow float32"]["ratio_to_ours"] == 0.5
    assert rows["train", "PyTorch eager"]["ratio_to_ours"] == 0.3
    assert rows["predi", "gliaflow float32"]["ratio_to_ours"] == 1.0


def test_the_table_names_the_machine_and_what_was_left_out():
    rows = table_of._rows({("train", "gliaflow float32"): [5.0]})
    text = table_of.table(rows, WHERE, {"PyTorch eager": "not installed"})
    assert "| training, 256x256, batch 16 | gliaflow float32 | 5.0 (5.0 to 5.0) | 1.00 |" in text
    assert "one with 2 cores (avx2), Python 3.11, numpy 2" in text
    assert "Left out: PyTorch eager: not installed." in text


def test_a_system_is_timed_in_a_process_of_its_own():
    command = [sys.executable, "-m", "bench.one", "gliaflow float32", "1"]
    done = subprocess.run(command, cwd=checkouts.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["seconds"].keys() == {"train", "predict", "segment"}
    assert all(len(own) == 1 and own[0] > 0 for own in found["seconds"].values())
    assert found["parameters"] == 1_210_513


def test_every_system_has_a_name_of_its_own_and_ours_come_first():
    assert list(systems())[:2] == ["gliaflow bfloat16", "gliaflow float32"]
