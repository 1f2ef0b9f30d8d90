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


def kill_in_the_second(root, line_of_its_end: str) -> None:
    """Train until the second network says that line, and end it then."""
    process = subprocess.Popen(
        COMMAND, cwd=root, env=checkouts.environment(root), stdout=subprocess.PIPE, text=True
    )
    in_second = False
    for line in process.stdout or []:
        in_second |= "network 2 of 2" in line
        if in_second and line.startswith(line_of_its_end):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


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
    assert history.network.tolist() == [1] * 4 + [2] * 4
    counted = ["network", "epoch"]
    expected = pd.concat(curves, ignore_index=True)
    assert history.drop(columns=counted).equals(expected.drop(columns=counted))

    kill_in_the_second(root, "train: epoch 2")
    *resumed, said = trained(root)
    assert "goes on after epoch 4" in said and "goes on after epoch 2" in said
    assert resumed == straight
    assert not list((root / PATHS["checkpoint"]).rglob("*.npz"))


@pytest.mark.slow
def test_a_finer_network_goes_on_from_the_first_and_a_kill_in_it_changes_nothing(tmp_path):
    recipe = {"schedule": "cosine", "epochs": 4, "average_epochs": 2, "image_size": 32}
    root = checkouts.make(tmp_path, train=recipe)
    assert checkouts.call(root, "dvc", "repro", "split").returncode == 0
    trained(root)
    first = lean.weights(model_files.load(root / PATHS["model"]))
    curves = pd.read_csv(root / PATHS["history"])
    finer = {"epochs": 3, "learning_rate": 0.0005, "min_learning_rate": 0.0, "average_epochs": 2}
    checkouts.change(root, train={"finer": finer})
    *straight, said = trained(root)
    assert "train: network 2 of 2, goes on from network 1" in said
    assert ", 32x32 px" in said and ", 64x64 px" in said
    assert "kept the mean of the last 2 epochs' weights" in said and "best so far" not in said
    both = lean.weights(model_files.load(root / PATHS["model"]))
    for name, values in first.items():
        assert all(map(np.array_equal, both[f"network_1_{name}"], values))
    history = pd.read_csv(io.BytesIO(straight[1]))
    assert history.epoch.tolist() == list(range(1, 8))
    assert history.network.tolist() == [1] * 4 + [2] * 3
    assert history[:4].equals(curves)
    assert history.learning_rate[4:].max() <= 0.0005
    moved = [
        np.abs(old - new).max()
        for name, values in first.items()
        if name.endswith("_wide")
        for old, new in zip(values[:1], both[f"finer_1_{name}"][:1], strict=True)
    ]
    assert min(moved) > 0 and max(moved) < 0.5  # near the first, and not the first

    kill_in_the_second(root, "train: epoch 1")
    *resumed, said = trained(root)
    assert "goes on after epoch 4" in said and "goes on after epoch 1" in said
    assert resumed == straight


@pytest.mark.slow
def test_a_finer_network_than_the_slices_have_is_refused_in_a_sentence(tmp_path):
    recipe = {"schedule": "cosine", "image_size": 64, "finer": {"epochs": 1, "average_epochs": 0}}
    root = checkouts.make(tmp_path, train=recipe)
    assert checkouts.call(root, "dvc", "repro", "split").returncode == 0
    done = subprocess.run(
        COMMAND, cwd=root, env=checkouts.environment(root), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "halve train.image_size, or set train.finer.epochs to 0" in done.stderr
    assert "Traceback" not in done.stderr
