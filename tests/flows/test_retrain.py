"""The flow `retrain`, started twice in one checkout."""

import json
import subprocess
import sys

import checkouts
import pytest


@pytest.mark.slow
def test_a_second_retraining_waits_for_the_first_and_finds_its_decision(tmp_path):
    root = checkouts.make(tmp_path)
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "gliaflow", "run"], cwd=root, text=True,
            env=checkouts.environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert sum("another retraining runs in this checkout (process" in out for out in outputs) == 1
    assert sum("train: up to date" in out for out in outputs) == 1
    registry = json.loads(checkouts.call(root, "gliaflow", "registry", "--json").stdout)
    assert [version["version"] for version in registry["versions"]] == [1]
    assert [decision["verdict"] for decision in registry["decisions"]] == ["promote"]
