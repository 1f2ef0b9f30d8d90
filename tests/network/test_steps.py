"""The same curve on both backends, and on two devices as on one. Each runs in a process of its own."""

import csv
import json
import os
import subprocess
import sys

import checkouts
import numpy as np
import pytest

from pipeline.network import steps

pytestmark = pytest.mark.slow
TWO = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}


def curve(backend: str, **environment: str) -> tuple[int, np.ndarray, np.ndarray]:
    """Devices in use; loss, validation loss and validation Tversky of each epoch, and those of the
    one epoch with every switch on.
    """
    done = subprocess.run(
        [sys.executable, "tests/one_curve.py"],
        cwd=checkouts.ROOT,
        env={**os.environ, "PYTHONPATH": ".", "KERAS_BACKEND": backend, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return found["devices"], np.array(found["curve"]), np.array(found["everything"])


@pytest.fixture(scope="module")
def on_jax() -> tuple[np.ndarray, np.ndarray]:
    devices, *found = curve("jax")
    assert devices == 1
    return tuple(found)


LEAN = "tests/network/test_lean.py::test_both_"


def test_under_jax_the_lean_network_is_the_drawn_one_and_slices_are_changed_alike():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "tests/network/test_augment.py"),
            *(f"{LEAN}give_the_same_probabilities[1-{training}]" for training in (False, True)),
            *(f"{LEAN}have_the_same_gradients[1]", f"{LEAN}keep_the_same_averages_after_a_step_in_training"),
        ],
        cwd=checkouts.ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_a_set_of_about_the_same_size_needs_no_other_program():
    lengths = [(90, 96), (103, 112), (111, 112), (2414, 2560), (2462, 2560), (1, 1)]
    for length, expected in lengths:
        assert len(steps._with_room(np.ones((length, 2)))) == expected


def test_two_devices_give_the_curve_of_one(on_jax):
    devices, found, everything = curve("jax", **TWO)
    assert devices == 2
    assert found[:, :2] == pytest.approx(on_jax[0][:, :2], abs=1e-3)
    assert everything[:, :2] == pytest.approx(on_jax[1][:, :2], abs=1e-4)


def test_jax_gives_the_curve_of_tensorflow(on_jax):
    _, found, everything = curve("tensorflow")
    assert everything[0, :2] == pytest.approx(on_jax[1][0, :2], abs=2e-3)
    assert found[0, :2] == pytest.approx(on_jax[0][0, :2], abs=2e-3)
    # Rounding makes two trainings of them, as two seeds would.
    assert found[:, 0] == pytest.approx(on_jax[0][:, 0], abs=0.02)
    assert found[-1, 0] < found[0, 0] - 0.04  # it learns


def test_the_stage_trains_under_jax_on_two_devices_and_tensorflow_reads_the_model(tmp_path):
    root = checkouts.make(tmp_path)
    assert checkouts.call(root, "dvc", "repro", "split").returncode == 0
    paths = {
        "scans": "data/scans", "manifest": "data/manifest.csv",
        "quarantine": "data/quarantine.csv", "splits": "data/splits.csv",
        "model": "models/resunet.keras", "history": "models/history.csv",
        "checkpoint": ".local/checkpoints",
    }  # fmt: skip
    words = [word for key, path in paths.items() for word in (f"--{key}", path)]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.stages", "train", *words], cwd=root,
        env={**checkouts.environment(root), "KERAS_BACKEND": "jax", **TWO},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train: 2 devices, each with 4 slices of a step" in done.stdout
    with (root / "models/history.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert losses[-1] < losses[0]
    assert checkouts.call(root, "dvc", "commit", "-f", "train").returncode == 0
    evaluated = checkouts.call(root, "dvc", "repro", "--single-item", "evaluate")
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert "evaluate: test Tversky" in evaluated.stdout
