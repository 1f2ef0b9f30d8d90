"""The stage by itself on a tiny phantom: slices in memory and slices read while training."""

import io
import os
import signal
import subprocess
import sys

import checkouts
import numpy as np
import pandas as pd
import pytest

from pipeline.adapters import model_files
from pipeline.network import lean, resunet

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


@pytest.mark.slow
def test_several_networks_are_those_of_their_seeds_and_a_kill_in_the_second_changes_nothing(
    tmp_path,
):
    root = checkouts.make(tmp_path, train={"epochs": 4, "image_size": 32})
    assert checkouts.call(root, "dvc", "repro", "split").returncode == 0
    alone, curves = [], []
    for seed in (1, 2):
        checkouts.change(root, train={"seed": seed})
        _, history, _ = trained(root)
        alone.append(lean.weights(model_files.load(root / PATHS["model"])))
        curves.append(pd.read_csv(io.BytesIO(history)))
    checkouts.change(root, train={"seed": 1, "networks": 2})
    *straight, said = trained(root)
    assert "train: network 2 of 2" in said
    both = lean.weights(model_files.load(root / PATHS["model"]))
    for prefix, own in zip(resunet.prefixes(2), alone, strict=True):
        for name, values in own.items():
            assert all(map(np.array_equal, both[prefix + name], values))
    history = pd.read_csv(io.BytesIO(straight[1]))
    assert history.epoch.tolist() == list(range(1, 9))
    expected = pd.concat(curves, ignore_index=True)
    assert history.drop(columns="epoch").equals(expected.drop(columns="epoch"))

    process = subprocess.Popen(
        COMMAND, cwd=root, env=checkouts.environment(root), stdout=subprocess.PIPE, text=True
    )
    in_second = False
    for line in process.stdout or []:
        in_second |= "network 2 of 2" in line
        if in_second and line.startswith("train: epoch 2"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    *resumed, said = trained(root)
    assert "goes on after epoch 4" in said and "goes on after epoch 2" in said
    assert resumed == straight
    assert not list((root / PATHS["checkpoint"]).rglob("*.npz"))
