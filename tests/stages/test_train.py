"""The stage by itself on a tiny phantom: slices in memory and slices read while training."""

import subprocess
import sys

import checkouts
import pytest

PATHS = {
    "scans": "data/scans", "manifest": "data/manifest.csv", "quarantine": "data/quarantine.csv",
    "splits": "data/splits.csv", "model": "models/resunet.keras",
    "history": "models/history.csv", "checkpoint": ".local/checkpoints",
}  # fmt: skip


def trained(root) -> tuple[bytes, bytes, str]:
    """Model, curves, and what was said."""
    words = [word for key, path in PATHS.items() for word in (f"--{key}", path)]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.stages", "train", *words],
        cwd=root, env=checkouts.environment(root), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return *((root / PATHS[key]).read_bytes() for key in ("model", "history")), done.stdout


@pytest.mark.slow
def test_slices_over_the_budget_are_read_while_training_to_the_same_weights(tmp_path):
    root = checkouts.make(tmp_path, train={"intensity": "scan", "slices": "balanced"})
    assert checkouts.call(root, "dvc", "repro", "split").returncode == 0
    *held, said = trained(root)
    assert "memory_gib" not in said
    checkouts.change(root, train={"memory_gib": 0.0001})
    *streamed, said = trained(root)
    assert "over train.memory_gib: they are read while training" in said
    assert streamed == held
