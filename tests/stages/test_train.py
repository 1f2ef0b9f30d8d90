"""The stage on a tiny phantom: in memory and streamed, ensembles, refinement, resuming."""

import io
import subprocess
import sys
from pathlib import Path

import checkouts
import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline.adapters.model import model_files
from pipeline.network import architecture, fused

pytestmark = pytest.mark.slow
MODEL, HISTORY = "models/resunet.keras", "models/history.csv"


def command() -> list[str]:
    """Return the command of the stage in dvc.yaml, for this Python."""
    stages = yaml.safe_load((checkouts.ROOT / "dvc.yaml").read_text())["stages"]
    return [sys.executable, *stages["train"]["cmd"].split()[1:]]


def make_checkout(folder: Path, **train) -> Path:
    """Make a checkout whose data are ready to train on."""
    root = checkouts.make(folder, train=train)
    assert checkouts.call(root, "dvc", "repro", "split").returncode == 0
    return root


def run_stage(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(), cwd=root, env=checkouts.environment(root), capture_output=True, text=True
    )


def train(root: Path) -> tuple[tuple[bytes, bytes], str]:
    """Return the bytes of model and history, and what the stage printed."""
    done = run_stage(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return ((root / MODEL).read_bytes(), (root / HISTORY).read_bytes()), done.stdout


def kill_training(root: Path, *, after: str, network: int = 1) -> None:
    """Train until a network prints a line that starts with `after`, then kill the stage."""
    with subprocess.Popen(
        command(), cwd=root, env=checkouts.environment(root), stdout=subprocess.PIPE, text=True
    ) as process:
        reached = network == 1
        for line in process.stdout or []:
            reached |= line.startswith(f"train: network {network} of")
            if reached and line.startswith(after):
                break
        process.kill()


def model_weights(root: Path) -> fused.Weights:
    return fused.layer_weights(model_files.load_model(root / MODEL))


def holds(model: fused.Weights, prefix: str, network: fused.Weights) -> bool:
    """Return whether a model holds a network, bit by bit, under a prefix."""
    return all(
        np.array_equal(a, b)
        for name, values in network.items()
        for a, b in zip(model[prefix + name], values, strict=True)
    )


def test_slices_that_exceed_the_memory_limit_are_streamed_and_give_the_same_model(tmp_path):
    root = make_checkout(tmp_path, intensity="scan", slices="balanced")
    in_memory, printed = train(root)
    assert "memory_gib" not in printed
    checkouts.change(root, train={"memory_gib": 0.0001})
    streamed, printed = train(root)
    assert "exceed train.memory_gib: streaming from disk" in printed
    assert streamed == in_memory


def test_a_training_killed_during_the_averaged_epochs_resumes_to_the_same_mean(tmp_path):
    root = make_checkout(tmp_path, schedule="cosine", epochs=8, average_epochs=5, image_size=32)
    uninterrupted, printed = train(root)
    assert "kept the mean of the last 5 epochs' weights" in printed
    kill_training(root, after="train: epoch 5")
    resumed, printed = train(root)
    assert "resumes after epoch" in printed
    assert resumed == uninterrupted
    checkouts.change(root, train={"average_epochs": 0})
    last_epoch, _ = train(root)
    assert last_epoch[0] != uninterrupted[0]
    assert last_epoch[1] == uninterrupted[1]  # the same history: only what is kept differs


def test_an_ensemble_holds_the_networks_of_its_seeds_and_resumes_in_the_second(tmp_path):
    root = make_checkout(tmp_path, epochs=4, image_size=32)
    networks, histories = [], []
    for seed in (1, 2):
        checkouts.change(root, train={"seed": seed})
        (_, history), _ = train(root)
        networks.append(model_weights(root))
        histories.append(pd.read_csv(io.BytesIO(history)))
    checkouts.change(root, train={"seed": 1, "networks": 2})
    uninterrupted, printed = train(root)
    assert "train: network 2 of 2" in printed
    ensemble = model_weights(root)
    for prefix, network in zip(architecture.network_prefixes(2), networks, strict=True):
        assert holds(ensemble, prefix, network)
    history = pd.read_csv(io.BytesIO(uninterrupted[1]))
    assert history.epoch.tolist() == list(range(1, 9))
    assert history.network.tolist() == [1] * 4 + [2] * 4
    numbers = ["network", "epoch"]
    expected = pd.concat(histories, ignore_index=True)
    assert history.drop(columns=numbers).equals(expected.drop(columns=numbers))

    kill_training(root, network=2, after="train: epoch 2")
    resumed, printed = train(root)
    assert "resumes after epoch 4" in printed and "resumes after epoch 2" in printed
    assert resumed == uninterrupted
    assert not list((root / ".local/checkpoints").rglob("*.npz"))


def test_a_refinement_continues_from_the_first_network_and_resumes(tmp_path):
    root = make_checkout(tmp_path, schedule="cosine", epochs=4, average_epochs=2, image_size=32)
    train(root)
    first, first_history = model_weights(root), pd.read_csv(root / HISTORY)
    refine = {"epochs": 3, "learning_rate": 0.0005, "min_learning_rate": 0.0, "average_epochs": 2}
    checkouts.change(root, train={"refine": refine})
    uninterrupted, printed = train(root)
    assert "train: network 2 of 2, continues from network 1" in printed
    assert ", 32x32 px" in printed and ", 64x64 px" in printed
    assert "kept the mean of the last 2 epochs' weights" in printed
    assert "best so far" not in printed
    refined = model_weights(root)
    assert holds(refined, "network_1_", first)
    history = pd.read_csv(io.BytesIO(uninterrupted[1]))
    assert history.epoch.tolist() == list(range(1, 8))
    assert history.network.tolist() == [1] * 4 + [2] * 3
    assert history[:4].equals(first_history)
    assert history.learning_rate[4:].max() <= 0.0005
    changes = [
        np.abs(values[0] - refined[f"finer_1_{name}"][0]).max()
        for name, values in first.items()
        if name.endswith("_wide")
    ]
    assert min(changes) > 0 and max(changes) < 0.5  # near the first network, but not the same

    kill_training(root, network=2, after="train: epoch 1")
    resumed, printed = train(root)
    assert "resumes after epoch 4" in printed and "resumes after epoch 1" in printed
    assert resumed == uninterrupted


def test_a_refinement_larger_than_the_slices_is_refused_without_a_traceback(tmp_path):
    refine = {"epochs": 1, "average_epochs": 0}
    root = make_checkout(tmp_path, schedule="cosine", image_size=64, refine=refine)
    done = run_stage(root)
    assert done.returncode == 1
    assert "halve train.image_size, or set train.refine.epochs to 0" in done.stderr
    assert "Traceback" not in done.stderr
