"""The flow itself, started twice in one checkout."""

import json
import subprocess
import sys

import checkouts
import pytest


@pytest.mark.slow
def test_a_second_retraining_waits_for_the_first_and_finds_its_decision(tmp_path):
    root = checkouts.make(tmp_path)
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run"], cwd=root, text=True,
            env=checkouts.environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("another retraining works in this checkout (process" in text for text in said) == 1
    assert sum("train: up to date" in text for text in said) == 1
    registry = json.loads(checkouts.call(root, "gliaflow", "registry", "--json").stdout)
    assert [version["version"] for version in registry["versions"]] == [1]
    assert [one["verdict"] for one in registry["decisions"]] == ["promote"]
