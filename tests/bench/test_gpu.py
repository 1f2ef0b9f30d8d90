"""The GPU benchmark: the floor of a step, worked by hand, and the command run small."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.gpu import __main__ as benchmark
from bench.gpu import gpu_work, roofline, timing

ROOT = Path(__file__).parents[2]
H100 = roofline.CARDS["H100"]
# On 4 x 4 pixels: a 3x3 convolution from 3 channels to 2, and the normalisation after it.
CONVOLUTION = roofline.convolution(side=4, channels=3, width=2, kernel=3)
NORM = roofline.Layer(inputs=32, outputs=32, multiply_adds=0)


def test_a_convolution_multiplies_each_output_by_its_window():
    # 16 pixels x 3 channels read, 16 x 2 written; each output sums 3 x 3 x 3 products.
    assert roofline.Layer(inputs=48, outputs=32, multiply_adds=32 * 27) == CONVOLUTION


def test_the_floor_of_a_step_worked_by_hand():
    floor = roofline.of_step([CONVOLUTION, NORM], batch=2, value_bytes=4, parameters=10)
    assert floor.flops == 2 * 3 * 2 * 864  # two per multiply-add, three passes, two slices
    # Inputs three times and outputs twice: 3 * 48 + 2 * 32 = 208 values; Adam: 10 * 24 bytes.
    assert floor.least_bytes == 2 * 4 * 208 + 240
    assert floor.layered_bytes == 2 * 4 * (208 + 5 * 32) + 240


def test_values_of_half_the_size_halve_the_bytes_and_leave_the_multiplications():
    wide, narrow = (roofline.of_step([CONVOLUTION], batch=1, value_bytes=size) for size in (4, 2))
    assert wide.least_bytes == 2 * narrow.least_bytes
    assert wide.flops == narrow.flops


def test_the_longer_of_moving_and_multiplying_bounds_a_step():
    moving = roofline.Floor(flops=1, least_bytes=int(3.35e12), layered_bytes=int(6.7e12))
    assert roofline.least_seconds(moving, H100, "bfloat16") == pytest.approx(1.0)
    multiplying = roofline.Floor(flops=int(2 * 989e12), least_bytes=1, layered_bytes=1)
    assert roofline.least_seconds(multiplying, H100, "bfloat16") == pytest.approx(2.0)


def test_shares_of_peak_rates_are_given_for_known_cards_only():
    floor = roofline.Floor(flops=int(98.9e12), least_bytes=int(0.67e12), layered_bytes=int(1.34e12))
    rates = roofline.reached(floor, 2.0, H100, "bfloat16")
    assert rates["gb_per_second_least"] == pytest.approx(335)
    assert rates["tflop_per_second"] == pytest.approx(49.45)
    assert rates["share_of_bandwidth_least"] == pytest.approx(0.1)
    assert rates["share_of_bandwidth_layered"] == pytest.approx(0.2)
    assert rates["share_of_matrix_rate"] == pytest.approx(0.05)
    assert rates["share_of_floor"] == pytest.approx(0.1)
    unknown = roofline.reached(floor, 2.0, None, "bfloat16")
    assert unknown.keys() == {key for key in rates if not key.startswith("share")}


@pytest.mark.parametrize(
    ("name", "bandwidth"),
    [
        ("NVIDIA H100 80GB HBM3", 3.35e12),
        ("NVIDIA H200", 4.8e12),
        ("NVIDIA H100 PCIe", None),
        ("cpu", None),
    ],
)
def test_cards_are_known_by_name(name, bandwidth):
    card = roofline.card(name)
    assert (card and card.bytes_a_second) == bandwidth


def test_layers_are_read_from_the_network_that_trains():
    from pipeline.network import fused

    layers = roofline.layers_of(fused.build(image_size=16, filters=(2, 3, 4, 5, 6)))
    # The opening: 256 pixels of 3 channels to 2, normalised, then 2 to 2.
    first = roofline.convolution(side=16, channels=3, width=2, kernel=3)
    second = roofline.convolution(side=16, channels=2, width=2, kernel=3)
    assert layers[:3] == [first, roofline.Layer(512, 512, 0), second]
    assert layers[-1] == roofline.convolution(side=16, channels=2, width=1, kernel=1)


def test_without_compiling_the_first_epoch_counts_as_the_median_of_the_others():
    speed = benchmark._speed([30.0, 2.0, 3.0, 2.0], 100)
    assert speed == {"seconds_with_compiling": 37.0, "seconds": 9.0, "images_per_second": 400 / 9}
    assert benchmark._speed([30.0], 100)["seconds"] is None


def test_ratios_refer_to_the_fastest_gliaflow_row_and_warm_up_is_not_counted():
    floor = roofline.of_step([CONVOLUTION], batch=1, value_bytes=4)
    floors = dict.fromkeys(("float32", "bfloat16"), floor)
    medians = {"gliaflow bfloat16": 2.0, "gliaflow float32": 4.0, "PyTorch float32": 1.0}
    seconds = {name: [50.0, 40.0, s, s / 2, s * 2] for name, s in medians.items()}
    precisions = {name: name.split()[1] for name in medians}
    rows = timing.rows_of(seconds, steps=10, precisions=precisions, floors=floors, card=None)
    assert [row["ratio_to_ours"] for row in rows] == [1.0, 0.5, 2.0]
    assert rows[0]["images_per_second"] == {"median": 80.0, "low": 40.0, "high": 160.0}
    assert rows[0]["compile_seconds"] == 48.0


def test_without_pytorch_its_rows_are_left_out_with_the_reason(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    names = timing.systems("bfloat16")
    assert timing.left_out_of(list(names), quick=False) == dict.fromkeys(
        timing.PEERS, timing.NO_PYTORCH
    )


def test_pytorch_augments_slices_as_gliaflow_does():
    torch = pytest.importorskip("torch")

    from bench import peers
    from pipeline.network import augment

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    masks = rng.integers(0, 256, (4, 32, 32), dtype=np.uint8)
    settings = augment.Augmentation(**gpu_work.AUGMENTATION)
    sampled = augment.sample(rng, slices=4, side=32, settings=settings)
    shares = masks[..., None].astype(np.float32) / 255
    ours = [np.asarray(array, np.float32) for array in augment.apply(images, shares, sampled)]
    theirs = peers.changed(*map(torch.from_numpy, (images, masks, *sampled[:2])))
    augmented, truth = (tensor.permute(0, 2, 3, 1).numpy() for tensor in theirs)
    assert np.abs(augmented * 255 - ours[0]).max() <= 1  # a half may be rounded either way
    assert (np.abs(augmented * 255 - ours[0]) > 0.5).mean() < 0.001
    assert np.abs(truth - ours[1]).max() < 1e-3


def run_benchmark(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu", *arguments],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fast"], "unrecognized arguments: --fast"),
        (["--epochs", "0"], "'0' is not a number of epochs; expected a whole number from 1"),
        (["--scans", "data/scans"], "--scans and --manifest go together"),
    ],
)
def test_a_wrong_option_ends_with_exit_code_2_and_an_error_message(arguments, message):
    done = run_benchmark(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_another_backend_is_refused():
    done = run_benchmark("--quick", KERAS_BACKEND="tensorflow")
    assert done.returncode == 2
    assert "set KERAS_BACKEND=jax" in done.stderr


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_the_quick_run_checks_times_trains_and_writes_its_files(tmp_path):
    done = run_benchmark("--quick", "--epochs", "1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert result["checks"]["all_hold"]
    names = [row["system"] for row in result["rows"]]
    assert "gliaflow float32" in names
    assert {*names, *result["left_out"]} >= {*timing.PEERS, "gliaflow float32"}
    assert all(len(row["epoch_seconds"]) == 7 for row in result["rows"])
    assert result["training"]["epochs"] == 1
    assert result["training"]["loss"] > 0
    page = (tmp_path / "gpu.md").read_text()
    assert page in done.stdout
    assert "| gliaflow float32 | " in page
