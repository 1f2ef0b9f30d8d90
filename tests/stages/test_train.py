"""The stage by itself on a tiny phantom: slices in memory and slices read while training."""

import os
import signal
import subprocess
import sys

import checkouts
import pytest

PATHS = {
    "scans": "data/scans", "manifest": "data/manifest.csv", "quarantine": "data/quarantine.csv",
    "splits": "data/splits.csv", "model": "models/resunet.keras",
    "history": "models/history.csv", "checkpoint": ".local/checkpoints",
}  # fmt: skip


COMMAND = [
    sys.executable, "-m", "pipeline.stages", "train",
    *(word for key, path in PATHS.items() for word in (f"--{key}", path)),
]  # fmt: skip


def trained(root) -> tuple[bytes, bytes, str]:
    """Model, curves, and what was said."""
    done = subprocess.run(
        COMMAND, cwd=root, env=checkouts.environment(root), capture_output=True, text=True
    )
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


@pytest.mark.slow
def test_a_training_killed_among_the_averaged_epochs_ends_with_the_same_mean(tmp_path):
    recipe = {"schedule": "cosine", "epochs": 8, "average_epochs": 5, "image_size": 32}
    root = checkouts.make(tmp_path, train=recipe)
    assert checkouts.call(root, "dvc", "repro", "split").returncode == 0
    *straight, said = trained(root)
    assert "kept the mean of the last 5 epochs' weights" in said
    process = subprocess.Popen(
        COMMAND, cwd=root, env=checkouts.environment(root), stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout or []:
        if line.startswith("train: epoch 5"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    *resumed, said = trained(root)
    assert "goes on after epoch" in said
    assert resumed == straight
    checkouts.change(root, train={"average_epochs": 0})
    *last, said = trained(root)
    assert last[0] != straight[0]
    assert last[1] == straight[1]  # the same curves: only what is kept differs
