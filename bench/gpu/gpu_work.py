"""Data and network of `bench.gpu`: slices, sizes, gliaflow's network on the device.

N slices of S x S pixels, T steps of B slices. Some imports are inside functions: they would
initialise the GPU, or load a library that the importing process does not need.
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench import workload
from pipeline.domain import phantom
from pipeline.errors import GliaflowError

if TYPE_CHECKING:
    from pipeline.network.epoch_loop import LossConfig
    from pipeline.network.steps import Steps
    from pipeline.network.training_data import SlicesInMemory

SEED = 1
SLICES_PER_PATIENT = 20  # of the phantom, on average
FEWEST_SLICES = 15  # 0.75 times that: a phantom patient has no fewer
AUGMENTATION = {"flip": 0.5, "rotate_degrees": 15, "scale": 0.1, "shift": 0.05, "intensity": 0.3}


@dataclass(frozen=True)
class Size:
    """How large the benchmark is.

    side: S in pixels. slices: to train on. judged: slices for validation. filters: five widths.
    epochs: of the training. repeats: epochs timed of each system.
    """

    side: int
    slices: int
    judged: int
    filters: tuple[int, ...]
    epochs: int
    repeats: int


FULL = Size(256, 1100, 110, workload.FILTERS, epochs=148, repeats=7)
QUICK = Size(32, 80, 16, (4, 6, 8, 10, 12), epochs=2, repeats=5)


class Pool(NamedTuple):
    """images: (N, S, S, 3) uint8. masks: (N, S, S) uint8, share of tumour times 255. patients: (N,)."""

    images: np.ndarray
    masks: np.ndarray
    patients: np.ndarray

    def part(self, start: int, stop: int | None) -> "Pool":
        return Pool(*(array[start:stop] for array in self))


class Epoch(NamedTuple):
    """One epoch of training.

    chosen: (T, B) positions in the pool. augmentation: transforms and gains of all T steps, as
    in `augment.Sampled`.
    """

    pool: Pool
    chosen: np.ndarray
    augmentation: tuple[np.ndarray, ...]


def say(text: str) -> None:
    print(f"gpu: {text}", flush=True)


def since(start: float) -> float:
    """Return the seconds since `start`, a value of time.perf_counter()."""
    return time.perf_counter() - start


def pool_of(size: Size, scans: Path | None, manifest: Path | None) -> Pool:
    """Return slices to train on, followed by those for validation.

    Args:
        scans, manifest: folder of arrays and table of real slices; None: the phantom.

    Raises:
        GliaflowError: the folder holds too few slices.
    """
    count = size.slices + size.judged
    start = time.perf_counter()
    pool = _real(scans, manifest, size.side) if scans and manifest else _phantom(size.side, count)
    pool = pool.part(0, count)
    if len(pool.images) < count:
        raise GliaflowError(
            f"{scans} holds {len(pool.images)} slices; expected at least {count}: add scans"
        )
    kind = "real" if scans else "phantom"
    say(f"{count} {kind} slices of {size.side}x{size.side} px in {since(start):.1f} s")
    return pool


def _phantom(side: int, count: int) -> Pool:
    """Generate at least `count` slices on all cores."""
    names = phantom.patient_names(patients=-(-count // FEWEST_SLICES), seed=SEED)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as executor:
        scans = list(executor.map(_scan, names, [side] * len(names)))
    counts = [len(scan.images) for scan in scans]
    return Pool(
        np.concatenate([scan.images for scan in scans]),
        np.concatenate([scan.masks for scan in scans]) * np.uint8(255),
        np.repeat(np.arange(len(scans)), counts),
    )


def _scan(patient: str, side: int) -> phantom.PhantomScan:
    return phantom.generate(patient, slices=SLICES_PER_PATIENT, size_px=side, seed=SEED)


def _real(scans: Path, manifest: Path, side: int) -> Pool:
    """Read the slices of a manifest whose arrays exist, reduced to `side`."""
    from pipeline.adapters.scans import arrays
    from pipeline.adapters.storage import csv_files, stage_tables
    from pipeline.network import architecture

    rows = csv_files.read_table(manifest)
    has_arrays = rows.patient.map(lambda patient: (scans / patient).is_dir())
    rows = rows[has_arrays & rows.conflict.isna()].astype({"slice": int})
    if rows.empty:
        raise GliaflowError(
            f"{scans} holds no patient of {manifest}; expected a folder for each: run `dvc repro "
            "ingest`"
        )
    rows = rows.sort_values(["patient", "slice"])
    rows = rows.assign(position=rows.groupby("patient").cumcount())
    height, width = (int(rows[name].iloc[0]) for name in ("height", "width"))
    factor = architecture.downsampling_factor(image_size=side, height=height, width=width)
    return Pool(*arrays.load_slices(scans, stage_tables.slice_positions(rows), factor=factor))


def epoch_of(pool: Pool) -> Epoch:
    """Return one epoch over all slices of a pool; order and augmentation depend on the seed."""
    from pipeline.network import augment

    rng = np.random.default_rng(SEED)
    count, side = len(pool.images) // workload.BATCH, pool.images.shape[1]
    chosen = rng.permutation(len(pool.images))[: count * workload.BATCH].reshape(count, -1)
    settings = augment.Augmentation(**AUGMENTATION)
    sampled = [
        augment.sample(rng, slices=workload.BATCH, side=side, settings=settings)
        for _ in range(count)
    ]
    transforms, gains = augment.stack(sampled)[:2]
    return Epoch(pool, np.sort(chosen, axis=1), (transforms, gains))


def network_of(size: Size, precision: str) -> Any:
    """Return the fused network, compiled, with the initial weights of a plain one."""
    from pipeline.network import backend, epoch_loop, fused, resunet

    backend.make_repeatable(SEED)
    side, filters = size.side, size.filters
    plain = resunet.build(image_size=side, filters=filters, height=side, width=side)
    network = fused.build(image_size=side, filters=filters, dtype=backend.policy(precision))
    fused.set_layer_weights(network, fused.fuse(fused.layer_weights(plain)))
    epoch_loop.compile_model(network, loss=loss(), learning_rate=workload.LEARNING_RATE)
    return network


def loss() -> "LossConfig":
    from pipeline.network import epoch_loop

    return epoch_loop.LossConfig(missed_weight=workload.MISSED_WEIGHT, exponent=workload.EXPONENT)


def on_device(pool: Pool) -> "SlicesInMemory":
    """Bring a pool to the device, as a source of slices."""
    from pipeline.network import training_data

    has_tumour = np.asarray(pool.masks.any(axis=(1, 2)))
    return training_data.SlicesInMemory(*pool, has_tumour=has_tumour).on_device()


def best_precision() -> str:
    """Return bfloat16 if the machine multiplies it, else float32."""
    from pipeline.network import backend

    try:
        backend.policy("bfloat16")
    except GliaflowError as error:
        say(f"float32 only: {error}")
        return "float32"
    return "bfloat16"


def train(compiled: "Steps", source: "SlicesInMemory", epoch: Epoch) -> np.ndarray:
    """Train one epoch on a source of its slices; return the (T,) losses."""
    from pipeline.network import augment

    sampled = augment.Sampled(*epoch.augmentation)
    return compiled.train(source.images, source.masks, epoch.chosen, sampled)
