"""What `bench.gpu` works on: slices, sizes, gliaflow's network on the device.

N slices of S x S pixels, T steps of B slices. What is imported late would take the card, or
is not needed by the process that it would be imported in.
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import work
from pipeline.domain import phantom
from pipeline.errors import GliaflowError

SEED = 1
AUGMENTATION = {"flip": 0.5, "rotate_degrees": 15, "scale": 0.1, "shift": 0.05, "intensity": 0.3}


@dataclass(frozen=True)
class Size:
    """How large everything is. judged: slices to validate by. repeats: of each timed epoch."""

    side: int
    slices: int
    judged: int
    filters: tuple[int, ...]
    epochs: int
    repeats: int


FULL = Size(256, 1100, 110, work.FILTERS, epochs=148, repeats=7)
QUICK = Size(32, 80, 16, (4, 6, 8, 10, 12), epochs=2, repeats=5)


class Pool(NamedTuple):
    """images: (N, S, S, 3) uint8. masks: (N, S, S) uint8, share of tumour times 255. patients: (N,)."""

    images: np.ndarray
    masks: np.ndarray
    patients: np.ndarray

    def part(self, start: int, stop: int | None) -> "Pool":
        return Pool(*(own[start:stop] for own in self))


class Epoch(NamedTuple):
    """What an epoch is made of. chosen: (T, B) positions. drawn: as `augment.stacked` gives it."""

    pool: Pool
    chosen: np.ndarray
    drawn: tuple[np.ndarray, ...]


def say(text: str) -> None:
    print(f"gpu: {text}", flush=True)


def since(began: float) -> float:
    return time.perf_counter() - began


def pool_of(size: Size, scans: Path | None, manifest: Path | None) -> Pool:
    """Slices to train on, then those to judge by; real ones where a folder of scans is given."""
    wanted = size.slices + size.judged
    began = time.perf_counter()
    pool = _real(scans, manifest, size.side) if scans and manifest else _phantom(size.side, wanted)
    pool = pool.part(0, wanted)
    if len(pool.images) < wanted:
        raise GliaflowError(
            f"{scans} holds {len(pool.images)} slices; expected at least {wanted}: bring more scans"
        )
    kind = "real" if scans else "phantom"
    say(f"{wanted} {kind} slices of {size.side}x{size.side} px in {since(began):.1f} s")
    return pool


def _phantom(side: int, wanted: int) -> Pool:
    """Drawn by all cores; a patient has 15 slices at least."""
    names = phantom.patient_names(patients=-(-wanted // 15), seed=SEED)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as drawing:
        scans = list(drawing.map(_scan, names, [side] * len(names)))
    counts = [len(scan.images) for scan in scans]
    return Pool(
        np.concatenate([scan.images for scan in scans]),
        np.concatenate([scan.masks for scan in scans]) * np.uint8(255),
        np.repeat(np.arange(len(scans)), counts),
    )


def _scan(patient: str, side: int) -> phantom.Scan:
    return phantom.draw(patient, slices=20, size_px=side, seed=SEED)


def _real(scans: Path, manifest: Path, side: int) -> Pool:
    """The slices of a manifest whose arrays are there, made smaller to `side`."""
    from pipeline.adapters import arrays, files, tables
    from pipeline.network import resunet

    rows = files.read_table(manifest)
    there = rows.patient.map(lambda patient: (scans / patient).is_dir())
    rows = rows[there & rows.conflict.isna()].astype({"slice": int})
    if rows.empty:
        raise GliaflowError(
            f"{scans} holds no patient of {manifest}; expected a folder for each: run `dvc repro "
            "ingest`"
        )
    rows = rows.sort_values(["patient", "slice"])
    rows = rows.assign(position=rows.groupby("patient").cumcount())
    height, width = (int(rows[name].iloc[0]) for name in ("height", "width"))
    factor = resunet.shrink_factor(image_size=side, height=height, width=width)
    return Pool(*arrays.load(scans, tables.positions(rows), factor=factor))


def epoch_of(pool: Pool) -> Epoch:
    """One epoch over all slices of a pool, in an order and with changes drawn from the seed."""
    from pipeline.network import augment

    generator = np.random.default_rng(SEED)
    count, side = len(pool.images) // work.BATCH, pool.images.shape[1]
    chosen = generator.permutation(len(pool.images))[: count * work.BATCH].reshape(count, -1)
    settings = {"side": side, "settings": augment.Settings(**AUGMENTATION)}
    drawn = [augment.draw(generator, slices=work.BATCH, **settings) for _ in range(count)]
    return Epoch(pool, np.sort(chosen, axis=1), tuple(augment.stacked(drawn)[:2]))


def network_of(size: Size, precision: str) -> Any:
    """The lean network, compiled, with the weights that a drawn one of this seed begins with."""
    from pipeline.network import backend, lean, recipe, resunet

    backend.make_repeatable(SEED)
    side, filters = size.side, size.filters
    drawn = resunet.build(image_size=side, filters=filters, height=side, width=side)
    network = lean.build(image_size=side, filters=filters, dtype=backend.policy(precision))
    lean.assign(network, lean.to_lean(lean.weights(drawn)))
    recipe.compile_model(network, loss=loss(), learning_rate=work.LEARNING_RATE)
    return network


def loss() -> Any:
    from pipeline.network import recipe

    return recipe.Loss(missed_weight=work.MISSED_WEIGHT, exponent=work.EXPONENT)


def placed(pool: Pool) -> Any:
    """The pool as a source that lies on the device."""
    from pipeline.network import recipe

    return recipe.Slices(*pool, has_tumour=pool.masks.any(axis=(1, 2))).placed()


def best_precision() -> str:
    """bfloat16 where the machine has it."""
    from pipeline.network import backend

    try:
        backend.policy("bfloat16")
    except GliaflowError as error:
        say(f"float32 alone: {error}")
        return "float32"
    return "bfloat16"


def train(own: Any, source: Any, epoch: Epoch) -> np.ndarray:
    from pipeline.network import augment

    return own.train(source.images, source.masks, epoch.chosen, augment.Drawn(*epoch.drawn))
