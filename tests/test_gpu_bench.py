"""What one card is measured by: the floor by hand, and the command run small."""

import importlib.util
import json
import os
import subprocess
import sys

import checkouts
import numpy as np
import pytest

from bench import floor, gpu, gpu_timing, gpu_work

H100 = floor.CARDS["H100"]
# On 4 x 4 pixels: 3x3 from 3 channels to 2, and what follows it.
ONE = floor.convolution(side=4, channels=3, width=2, kernel=3)
NORM = floor.Layer(inputs=32, outputs=32, multiply_adds=0)


def test_a_convolution_multiplies_each_output_by_its_window():
    # 16 pixels x 3 channels read, 16 x 2 written; each output sums 3 x 3 x 3 products.
    assert floor.Layer(inputs=48, outputs=32, multiply_adds=32 * 27) == ONE


def test_the_floor_of_a_step_worked_by_hand():
    found = floor.of_step([ONE, NORM], batch=2, value_bytes=4, parameters=10)
    assert found.flops == 2 * 3 * 2 * 864  # two a multiply-add, three passes, two slices
    # Inputs three times and outputs twice: 3 * 48 + 2 * 32 = 208 values; Adam: 10 * 24 bytes.
    assert found.least_bytes == 2 * 4 * 208 + 240
    assert found.layered_bytes == 2 * 4 * (208 + 5 * 32) + 240


def test_half_the_bytes_a_value_halve_what_is_moved_but_not_what_is_multiplied():
    wide, narrow = (floor.of_step([ONE], batch=1, value_bytes=size) for size in (4, 2))
    assert wide.least_bytes == 2 * narrow.least_bytes
    assert wide.flops == narrow.flops


def test_the_longer_of_moving_and_multiplying_bounds_a_step():
    moving = floor.Floor(flops=1, least_bytes=int(3.35e12), layered_bytes=int(6.7e12))
    assert floor.least_seconds(moving, H100, "bfloat16") == pytest.approx(1.0)
    multiplying = floor.Floor(flops=int(2 * 989e12), least_bytes=1, layered_bytes=1)
    assert floor.least_seconds(multiplying, H100, "bfloat16") == pytest.approx(2.0)


def test_shares_of_a_known_card_and_none_of_another():
    own = floor.Floor(flops=int(98.9e12), least_bytes=int(0.67e12), layered_bytes=int(1.34e12))
    found = floor.reached(own, 2.0, H100, "bfloat16")
    assert found["gb_per_second_least"] == pytest.approx(335)
    assert found["tflop_per_second"] == pytest.approx(49.45)
    assert found["share_of_bandwidth_least"] == pytest.approx(0.1)
    assert found["share_of_bandwidth_layered"] == pytest.approx(0.2)
    assert found["share_of_matrix_rate"] == pytest.approx(0.05)
    assert found["share_of_floor"] == pytest.approx(0.1)
    unknown = floor.reached(own, 2.0, None, "bfloat16")
    assert unknown.keys() == {k for k in found if not k.startswith("share")}


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
    found = floor.card(name)
    assert (found and found.bytes_a_second) == bandwidth


def test_layers_are_read_from_the_network_that_trains():
    from pipeline.network import lean

    layers = floor.layers_of(lean.build(image_size=16, filters=(2, 3, 4, 5, 6)))
    # The opening: 256 pixels of 3 channels to 2, normalised, then 2 to 2.
    first = floor.convolution(side=16, channels=3, width=2, kernel=3)
    second = floor.convolution(side=16, channels=2, width=2, kernel=3)
    assert layers[:3] == [first, floor.Layer(512, 512, 0), second]
    assert layers[-1] == floor.convolution(side=16, channels=2, width=1, kernel=1)


def test_the_first_epoch_of_a_training_is_known_by_the_others():
    found = gpu._paces([30.0, 2.0, 3.0, 2.0], 100)
    assert found == {"seconds_with_compiling": 37.0, "seconds": 9.0, "images_per_second": 400 / 9}
    assert gpu._paces([30.0], 100)["seconds"] is None


def test_ratios_are_to_the_fastest_of_our_own_and_warm_up_counts_for_nothing():
    floors = dict.fromkeys(("float32", "bfloat16"), floor.of_step([ONE], batch=1, value_bytes=4))
    names = {"gliaflow bfloat16": 2.0, "gliaflow float32": 4.0, "PyTorch float32": 1.0}
    seconds = {name: [50.0, 40.0, one, one / 2, one * 2] for name, one in names.items()}
    precisions = {name: name.split()[1] for name in names}
    rows = gpu_timing.rows_of(seconds, steps=10, precisions=precisions, floors=floors, card=None)
    assert [row["ratio_to_ours"] for row in rows] == [1.0, 0.5, 2.0]
    assert rows[0]["images_per_second"] == {"median": 80.0, "low": 40.0, "high": 160.0}
    assert rows[0]["compile_seconds"] == 48.0


def test_without_pytorch_its_rows_are_left_out_with_the_reason(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    names = gpu_timing.systems("bfloat16")
    assert gpu_timing.left_out_of(list(names), quick=False) == dict.fromkeys(
        gpu_timing.PEERS, gpu_timing.NO_PYTORCH
    )


def test_pytorch_changes_slices_as_we_do():
    torch = pytest.importorskip("torch")

    from bench import peer
    from pipeline.network import augment

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    masks = generator.integers(0, 256, (4, 32, 32), dtype=np.uint8)
    settings = augment.Settings(**gpu_work.AUGMENTATION)
    drawn = augment.draw(generator, slices=4, side=32, settings=settings)
    shares = masks[..., None].astype(np.float32) / 255
    ours = [np.asarray(one, np.float32) for one in augment.apply(images, shares, drawn)]
    theirs = peer.changed(*map(torch.from_numpy, (images, masks, *drawn[:2])))
    shown, truth = (one.permute(0, 2, 3, 1).numpy() for one in theirs)
    assert np.abs(shown * 255 - ours[0]).max() <= 1  # a half may be rounded either way
    assert (np.abs(shown * 255 - ours[0]) > 0.5).mean() < 0.001
    assert np.abs(truth - ours[1]).max() < 1e-3


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu", *arguments],
        cwd=checkouts.ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fast"], "unrecognized arguments: --fast"),
        (["--epochs", "0"], "'0' is no number of epochs; expected 1 or more"),
        (["--scans", "data/scans"], "--scans and --manifest go together"),
    ],
)
def test_a_wrong_option_ends_with_2_and_a_sentence(arguments, said):
    done = command(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_another_backend_is_refused():
    done = command("--quick", KERAS_BACKEND="tensorflow")
    assert done.returncode == 2
    assert "set KERAS_BACKEND=jax" in done.stderr


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_the_quick_run_checks_times_trains_and_writes(tmp_path):
    done = command("--quick", "--epochs", "1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["checks"]["all_hold"]
    names = [row["system"] for row in found["rows"]]
    assert "gliaflow float32" in names
    assert {*names, *found["left_out"]} >= {*gpu_timing.PEERS, "gliaflow float32"}
    assert all(len(row["epoch_seconds"]) == 7 for row in found["rows"])
    assert found["training"]["epochs"] == 1
    assert found["training"]["loss"] > 0
    page = (tmp_path / "gpu.md").read_text()
    assert page in done.stdout
    assert "| gliaflow float32 | " in page
