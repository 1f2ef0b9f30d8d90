"""Compare backends, and two devices with one. Each training runs in its own process."""

import csv
import json
import os
import subprocess
import sys

import checkouts
import numpy as np
import pytest
import yaml

from pipeline.network import steps

pytestmark = pytest.mark.slow
TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
FUSED = "tests/network/test_fused.py::test_both_networks"


def curve(backend: str, **environment: str) -> tuple[int, np.ndarray, np.ndarray]:
    """Run one_curve.py.

    Returns:
        Number of devices; loss, validation loss and validation Tversky of each epoch; and the
        same of the training of one epoch with every option on.
    """
    done = subprocess.run(
        [sys.executable, "tests/one_curve.py"],
        cwd=checkouts.ROOT,
        env={**os.environ, "PYTHONPATH": ".", "KERAS_BACKEND": backend, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    return result["devices"], np.array(result["curve"]), np.array(result["everything"])


@pytest.fixture(scope="module")
def on_jax() -> tuple[np.ndarray, np.ndarray]:
    """Curve and first epoch with every option on, under JAX on one device."""
    devices, jax_curve, everything = curve("jax")
    assert devices == 1
    return jax_curve, everything


def test_under_jax_fused_and_plain_networks_agree_and_augmentation_is_the_same():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "tests/network/test_augment.py"),
            *(f"{FUSED}_give_the_same_probabilities[1-{training}]" for training in (False, True)),
            f"{FUSED}_have_the_same_gradients[1]",
            f"{FUSED}_have_the_same_running_averages_after_a_training_step",
        ],
        cwd=checkouts.ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_arrays_of_about_the_same_length_are_padded_to_the_same_length():
    lengths = [(90, 96), (103, 112), (111, 112), (2414, 2560), (2462, 2560), (1, 1)]
    for length, expected in lengths:
        assert len(steps._pad(np.ones((length, 2)))) == expected


def test_two_devices_give_the_curve_of_one(on_jax):
    jax_curve, jax_everything = on_jax
    devices, two_curve, two_everything = curve("jax", **TWO_DEVICES)
    assert devices == 2
    assert two_curve[:, :2] == pytest.approx(jax_curve[:, :2], abs=1e-3)
    assert two_everything[:, :2] == pytest.approx(jax_everything[:, :2], abs=1e-4)


def test_jax_gives_the_curve_of_tensorflow(on_jax):
    jax_curve, jax_everything = on_jax
    _, tensorflow_curve, tensorflow_everything = curve("tensorflow")
    assert tensorflow_everything[0, :2] == pytest.approx(jax_everything[0, :2], abs=2e-3)
    assert tensorflow_curve[0, :2] == pytest.approx(jax_curve[0, :2], abs=2e-3)
    # Rounding drives the two trainings apart, as two seeds would.
    assert tensorflow_curve[:, 0] == pytest.approx(jax_curve[:, 0], abs=0.02)
    assert tensorflow_curve[-1, 0] < tensorflow_curve[0, 0] - 0.04  # it learns


def test_the_stage_trains_under_jax_on_two_devices_and_tensorflow_reads_the_model(tmp_path):
    root = checkouts.make(tmp_path)
    assert checkouts.call(root, "dvc", "repro", "split").returncode == 0
    command = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["train"]["cmd"].split()
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=root,
        env={**checkouts.environment(root), "KERAS_BACKEND": "jax", **TWO_DEVICES},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train: 2 devices, 4 slices of each step per device" in done.stdout
    with (root / "models/history.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert losses[-1] < losses[0]
    assert checkouts.call(root, "dvc", "commit", "-f", "train").returncode == 0
    evaluated = checkouts.call(root, "dvc", "repro", "--single-item", "evaluate")
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert "evaluate: test Tversky" in evaluated.stdout
