"""`KERAS_BACKEND=jax python -m bench.gpu`: what one graphics card makes of gliaflow.

Checks first, then speed beside PyTorch and beside what the card could do, then a training as
long as the published one. Every system that is timed runs in a process of its own, repeats
alternating. Needs what `pipeline.stages.train` needs, JAX, and for the peers' rows PyTorch.
With `--quick` all of it runs small, on a CPU too. Writes gpu.json and gpu.md.

N slices of S x S pixels, T steps of B slices. What is imported late would take the card, or
is not needed by the process that it would be imported in.
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import floor, work
from pipeline.domain import phantom
from pipeline.errors import GliaflowError

CLOSE = 1e-4  # outputs of the lean and the drawn network, float32
SEED = 1
WARM_UP = 2  # epochs: the first compiles
VALUE_BYTES = {"float32": 4, "bfloat16": 2}
AUGMENTATION = {"flip": 0.5, "rotate_degrees": 15, "scale": 0.1, "shift": 0.05, "intensity": 0.3}
PACKAGES = ("jax", "keras", "torch", "numpy")
NO_PYTORCH = "PyTorch is not installed"
NOT_QUICK = "left for a run without --quick"
PEERS = {
    "PyTorch float32": {"bfloat16": False, "mode": None},
    "PyTorch bfloat16": {"bfloat16": True, "mode": None},
    "PyTorch compiled float32": {"bfloat16": False, "mode": "default"},
    "PyTorch compiled bfloat16": {"bfloat16": True, "mode": "default"},
    "PyTorch compiled bfloat16, CUDA graphs": {"bfloat16": True, "mode": "reduce-overhead"},
}


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


# Slices


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
    say(f"{wanted} {kind} slices of {size.side}x{size.side} px in {_since(began):.1f} s")
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
    return Epoch(pool, np.sort(chosen, axis=1), tuple(augment.stacked(drawn)))


# gliaflow's network


def network_of(size: Size, precision: str) -> Any:
    """The lean network, compiled, with the weights that a drawn one of this seed begins with."""
    from pipeline.network import backend, lean, recipe, resunet

    backend.make_repeatable(SEED)
    side, filters = size.side, size.filters
    drawn = resunet.build(image_size=side, filters=filters, height=side, width=side)
    network = lean.build(image_size=side, filters=filters, dtype=backend.policy(precision))
    lean.assign(network, lean.to_lean(lean.weights(drawn)))
    recipe.compile_model(network, loss=_loss(), learning_rate=work.LEARNING_RATE)
    return network


def _loss() -> Any:
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


# Checks


def check(size: Size, pool: Pool, precision: str) -> dict[str, Any]:
    """All checks against a reference, said and returned."""
    found = {
        **outputs_beside_drawn(size, pool.images[: work.BATCH], precision),
        **flip_beside_numpy(pool.part(0, work.BATCH)),
        **two_epochs(size, pool, precision),
    }
    all_hold = found["outputs_hold"] and found["flip_holds"]
    say(f"check: {'all hold' if all_hold else 'NOT ALL HOLD'}")
    return {**found, "all_hold": all_hold}


def outputs_beside_drawn(size: Size, images: np.ndarray, precision: str) -> dict[str, Any]:
    """Largest difference of probabilities from those of the drawn network in exact float32."""
    import jax

    from pipeline.network import backend, lean, resunet

    side, filters = size.side, size.filters
    drawn = resunet.build(image_size=side, filters=filters, height=side, width=side)
    _stir(drawn)
    lean_of = {
        name: lean.build(image_size=side, filters=filters, dtype=backend.policy(name))
        for name in dict.fromkeys(["float32", precision])
    }
    for network in lean_of.values():
        lean.assign(network, lean.to_lean(lean.weights(drawn)))
    with jax.default_matmul_precision("highest"):
        wanted = _predicted(drawn, images)
        exact = _predicted(lean_of["float32"], images)
    found = {"float32_highest": exact, "float32": _predicted(lean_of["float32"], images)}
    if precision != "float32":
        found[precision] = _predicted(lean_of[precision], images)
    apart = {name: float(np.abs(own - wanted).max()) for name, own in found.items()}
    for name, value in apart.items():
        say(f"check: lean {name} beside the drawn network: largest difference {value:.2g}")
    spread = float(wanted.std())
    say(f"check: (probabilities there: mean {wanted.mean():.3f}, deviation {spread:.3f})")
    return {"outputs_apart": apart, "outputs_hold": apart["float32_highest"] < CLOSE}


def _stir(model: Any) -> None:
    """Random weights and batch statistics, so that nothing is hidden by a zero or a one."""
    generator = np.random.default_rng(SEED)
    for variable in model.variables:
        if variable.name in ("moving_variance", "gamma"):
            low, high = 0.5, 1.5
        else:
            high = 2.4 / np.sqrt(np.prod(variable.shape[:-1])) if len(variable.shape) == 4 else 0.5
            low = -high
        variable.assign(generator.uniform(low, high, variable.shape))


def _predicted(model: Any, images: np.ndarray) -> np.ndarray:
    import jax

    variables = [
        [one.value for one in part]
        for part in (model.trainable_variables, model.non_trainable_variables)
    ]
    found = jax.jit(lambda own, shown: model.stateless_call(*own, shown, training=False)[0])
    return np.asarray(found(variables, images))


def flip_beside_numpy(pool: Pool) -> dict[str, Any]:
    """A pure mirroring moves whole pixels, so that the device must give them unchanged."""
    from pipeline.network import augment

    only_flip = augment.Settings(**{**dict.fromkeys(AUGMENTATION, 0.0), "flip": 1.0})
    side, count = pool.images.shape[1], len(pool.images)
    generator = np.random.default_rng(SEED)
    drawn = augment.draw(generator, slices=count, side=side, settings=only_flip)
    images, masks = augment.apply(pool.images, pool.masks[..., None] / np.float32(255), drawn)
    wrong = int((np.asarray(images) != pool.images[:, :, ::-1]).sum())
    apart = float(np.abs(np.asarray(masks)[..., 0] - pool.masks[:, :, ::-1] / 255).max())
    say(f"check: mirrored slices: {wrong} values differ; masks: largest difference {apart:.2g}")
    return {
        "flip_wrong": wrong,
        "flip_masks_apart": apart,
        "flip_holds": not wrong and apart < 1e-6,
    }


def two_epochs(size: Size, pool: Pool, precision: str) -> dict[str, Any]:
    """Take one compiled epoch twice from the same weights and compare all that it leaves."""
    from pipeline.network import recipe, steps

    network = network_of(size, precision)
    own, start, ends = steps.make(network), recipe.variables(network), []
    epoch, source = epoch_of(pool.part(0, size.slices)), placed(pool.part(0, size.slices))
    for _ in range(2):
        recipe.restore(network, start)
        losses = _train(own, source, epoch)
        ends.append([losses, *recipe.variables(network)])
    equal = all(np.array_equal(a, b) for a, b in zip(*ends, strict=True))
    apart = max(float(np.abs(a - b).max()) for a, b in zip(*ends, strict=True))
    told = "bit for bit the same" if equal else f"not the same, by {apart:.2g} at most"
    say(f"check: an epoch of {precision} taken twice from the same weights: {told}")
    return {"epoch_twice_equal": equal, "epoch_twice_apart": apart}


def _train(own: Any, source: Any, epoch: Epoch) -> np.ndarray:
    from pipeline.network import augment

    return own.train(source.images, source.masks, epoch.chosen, augment.Drawn(*epoch.drawn))


# Timing


def ours(size: Size, epoch: Epoch, precision: str) -> Callable[[], object]:
    from pipeline.network import steps

    source, own = placed(epoch.pool), steps.make(network_of(size, precision))
    return lambda: _train(own, source, epoch)


def theirs(size: Size, epoch: Epoch, options: dict[str, Any]) -> Callable[[], object]:
    import torch

    from bench.peer import resident

    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, masks, _ = epoch.pool
    train = resident(images, masks, device=device, filters=size.filters, **options)
    return lambda: train(epoch.chosen, epoch.drawn)


def systems(best: str) -> dict[str, str]:
    """Every system that is timed and its precision, ours first."""
    precisions = dict.fromkeys([best, "float32"])
    peers = {name: "bfloat16" if own["bfloat16"] else "float32" for name, own in PEERS.items()}
    return {**{f"gliaflow {own}": own for own in precisions}, **peers}


def left_out_of(names: Sequence[str], *, quick: bool) -> dict[str, str]:
    """What is not timed, with the reason."""
    peers = [name for name in names if name in PEERS]
    if importlib.util.find_spec("torch") is None:
        return dict.fromkeys(peers, NO_PYTORCH)
    if quick:
        return {name: NOT_QUICK for name in peers if PEERS[name]["mode"]}
    return {}


class Worker:
    """A system in a process of its own, which runs an epoch each time it is asked."""

    def __init__(self, name: str, size: Size, epoch: Epoch):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, name, size, epoch), daemon=True)
        self._process.start()
        other.close()

    def seconds(self) -> float:
        """Seconds of one epoch.

        Raises:
            GliaflowError: the system does not run here; why, in a sentence.
        """
        try:
            self._pipe.send("again")
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise GliaflowError("its process ended without a word") from error
        if isinstance(answer, str):
            raise GliaflowError(answer)
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def serve(pipe: Any, name: str, size: Size, epoch: Epoch) -> None:
    """What a worker's process does: seconds of an epoch for each word that comes, or what failed."""
    run = None
    try:
        while pipe.recv():
            run = run or _made(name, size, epoch)
            began = time.perf_counter()
            run()
            pipe.send(_since(began))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {(str(error).strip().splitlines() or ['?'])[0]}")


def _made(name: str, size: Size, epoch: Epoch) -> Callable[[], object]:
    if name in PEERS:
        return theirs(size, epoch, PEERS[name])
    return ours(size, epoch, name.removeprefix("gliaflow "))


def measure(
    names: Sequence[str], size: Size, epoch: Epoch
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of each epoch by system, the first with compiling; and why others have none."""
    workers = {name: Worker(name, size, epoch) for name in names}
    found: dict[str, list[float]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    try:
        for _ in range(WARM_UP + size.repeats):
            for name in [name for name in names if name not in failed]:
                try:
                    found[name].append(workers[name].seconds())
                    say(f"{name}: epoch {len(found[name])}: {found[name][-1]:.3f} s")
                except GliaflowError as error:
                    failed[name] = str(error)
                    say(f"{name}: left out: {error}")
    finally:
        for worker in workers.values():
            worker.end()
    return {name: own for name, own in found.items() if name not in failed}, failed


def rows_of(
    seconds: dict[str, list[float]],
    *,
    steps: int,
    precisions: dict[str, str],
    floors: dict[str, floor.Floor],
    card: floor.Card | None,
) -> list[dict[str, Any]]:
    """A row for each system, from the seconds of its epochs of `steps` steps."""
    rows = []
    for name, own in seconds.items():
        precision, repeats = precisions[name], own[WARM_UP:]
        median = statistics.median(repeats)
        speeds = [steps * work.BATCH / one for one in (median, max(repeats), min(repeats))]
        rows.append(
            {
                "system": name,
                "precision": precision,
                "images_per_second": dict(zip(("median", "low", "high"), speeds, strict=True)),
                "step_ms": median / steps * 1e3,
                "compile_seconds": max(own[0] - median, 0.0),
                "epoch_seconds": own,
                **floor.reached(floors[precision], median / steps, card, precision),
            }
        )
    best = max((_speed(row) for row in rows if row["system"] not in PEERS), default=None)
    return [{**row, "ratio_to_ours": _speed(row) / best if best else None} for row in rows]


def _speed(row: dict[str, Any]) -> float:
    return row["images_per_second"]["median"]


# The floor


def floors_of(size: Size, card: floor.Card | None) -> dict[str, floor.Floor]:
    """The floor of a step by precision, said."""
    from pipeline.network import lean

    network = lean.build(image_size=size.side, filters=size.filters)
    trained = sum(int(np.prod(one.shape)) for one in network.trainable_variables)
    layers, found = floor.layers_of(network), {}
    for precision, value_bytes in VALUE_BYTES.items():
        own = floor.of_step(layers, batch=work.BATCH, value_bytes=value_bytes, parameters=trained)
        found[precision] = own
        say(_floor_told(own, precision, card))
    return found


def _floor_told(own: floor.Floor, precision: str, card: floor.Card | None) -> str:
    text = (
        f"floor of a step, {precision}: {own.flops / 1e9:.4g} GFLOP; {own.least_bytes / 1e9:.3g} GB "
        f"by convolutions alone, {own.layered_bytes / 1e9:.3g} GB layer by layer"
    )
    if card is None:
        return f"{text}; the card's peaks are unknown"
    return f"{text}; on this card {floor.least_seconds(own, card, precision) * 1e3:.3g} ms"


# Training


def schedule_of(size: Size, pool: Pool, precision: str) -> dict[str, Any]:
    """Train as `train` does, augmented and judged each epoch, and time it."""
    from pipeline.domain import schedule
    from pipeline.network import augment, recipe

    network = network_of(size, precision)
    rules = schedule.Rules(
        kind="plateau", epochs=size.epochs, learning_rate=work.LEARNING_RATE,
        patience=size.epochs, plateau_patience=10, plateau_factor=0.5, min_learning_rate=1e-5,
    )  # fmt: skip
    epochs = recipe.epochs(
        network,
        train=placed(pool.part(0, size.slices)),
        validation=placed(pool.part(size.slices, None)),
        batch=work.BATCH,
        balanced=False,
        augmentation=augment.Settings(**AUGMENTATION),
        loss=_loss(),
        rules=rules,
        state=schedule.start(rules),
        done=0,
        seed=SEED,
    )
    marks, last = [time.perf_counter()], None
    # Cut off before the end, where a training that found no tumour is refused: this one is timed.
    for last, _ in itertools.islice(epochs, size.epochs):
        marks.append(time.perf_counter())
        if last.epoch % max(size.epochs // 10, 1) == 0:
            say(f"training: epoch {last.epoch}: loss {last.loss:.4f}, {_since(marks[0]):.1f} s")
    return {
        "precision": precision,
        "epochs": size.epochs,
        "slices": size.slices,
        "judged": size.judged,
        "loss": last.loss,
        "val_tversky": last.val_tversky,
        **_paces(np.diff(marks).tolist(), size.slices),
    }


def _paces(seconds: list[float], slices: int) -> dict[str, float | None]:
    """From seconds of each epoch; the first one compiled, which the others tell apart."""
    if len(seconds) == 1:
        return {"seconds_with_compiling": seconds[0], "seconds": None, "images_per_second": None}
    rest = sum(seconds[1:]) + statistics.median(seconds[1:])
    return {
        "seconds_with_compiling": sum(seconds),
        "seconds": rest,
        "images_per_second": len(seconds) * slices / rest,
    }


def training_told(found: dict[str, Any]) -> str:
    text = (
        f"training, {found['epochs']} x {found['slices']} slices in {found['precision']}, "
        f"judged each by {found['judged']} more: {found['seconds_with_compiling']:.1f} s"
    )
    if found["seconds"] is not None:
        text += (
            f", {found['seconds']:.1f} s without compiling, "
            f"{found['images_per_second']:.0f} images a second"
        )
    return f"{text}; final loss {found['loss']:.4f}"


# What is written


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    import jax

    device = jax.devices()[0]
    return {
        "card": device.device_kind,
        "platform": device.platform,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES if importlib.util.find_spec(name)},
        "date": date.today().isoformat(),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def page(found: dict[str, Any]) -> str:
    """The table in Markdown, with what was checked and trained below."""
    where, size, checks = found["machine"], found["size"], found["checks"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    lines = [
        f"Training, {size['side']}x{size['side']} px, filters {', '.join(map(str, size['filters']))}, "
        f"batch {work.BATCH}, slices resident and augmented on {where['card']}; "
        f"epochs of {size['slices'] // work.BATCH} steps.",
        "",
        "| system | images a second: median (lowest to highest) | of our best | ms a step (floor's share) | "
        "compiling, s | TFLOP/s | GB/s, least to layered |",
        "|---|---|---|---|---|---|---|",
        *map(_line, found["rows"]),
        "",
        *[f"- Left out: {name}: {why}." for name, why in found["left_out"].items()],
        *_checks_told(checks),
        f"- T{training_told(found['training'])[1:]}.",
        "",
        f"{where['date']}, {where['card']}, Python {where['python']}, {versions}; "
        f"epochs timed of each: {size['repeats']}, alternating.",
    ]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    speed = row["images_per_second"]
    ratio = "" if row["ratio_to_ours"] is None else f"{row['ratio_to_ours']:.2f}"
    cells = [
        row["system"],
        f"{speed['median']:.1f} ({speed['low']:.1f} to {speed['high']:.1f})",
        ratio,
        f"{row['step_ms']:.2f}{_percent(row, 'share_of_floor')}",
        f"{row['compile_seconds']:.1f}",
        f"{row['tflop_per_second']:.3g}{_percent(row, 'share_of_matrix_rate')}",
        f"{row['gb_per_second_least']:.4g}{_percent(row, 'share_of_bandwidth_least')} to "
        f"{row['gb_per_second_layered']:.4g}{_percent(row, 'share_of_bandwidth_layered')}",
    ]
    return f"| {' | '.join(cells)} |"


def _percent(row: dict[str, Any], name: str) -> str:
    return f" ({row[name]:.1%})" if name in row else ""


def _checks_told(checks: dict[str, Any]) -> list[str]:
    apart = ", ".join(f"{name} {value:.2g}" for name, value in checks["outputs_apart"].items())
    apart_by = f"not the same, by {checks['epoch_twice_apart']:.2g} at most"
    twice = "bit for bit the same" if checks["epoch_twice_equal"] else apart_by
    return [
        f"- Largest difference of outputs from the drawn network in exact float32: {apart}.",
        f"- Mirrored slices: {checks['flip_wrong']} values differ from numpy's. An epoch taken twice: "
        f"{twice}.",
    ]


def run(size: Size, *, quick: bool, scans: Path | None, manifest: Path | None) -> dict[str, Any]:
    """All of it, as gpu.json holds it."""
    where, precision = machine(), best_precision()
    card = floor.card(where["card"])
    say(f"{where['card']}; peaks {'known' if card else 'unknown'}; {where['versions']}")
    pool = pool_of(size, scans, manifest)
    checks = check(size, pool, precision)
    precisions, epoch = systems(precision), epoch_of(pool.part(0, size.slices))
    left_out = left_out_of(list(precisions), quick=quick)
    for name, why in left_out.items():
        say(f"{name}: left out: {why}")
    timed = [name for name in precisions if name not in left_out]
    seconds, failed = measure(timed, size, epoch)
    floors = floors_of(size, card)
    rows = rows_of(
        seconds, steps=len(epoch.chosen), precisions=precisions, floors=floors, card=card
    )
    training = schedule_of(size, pool, precision)
    say(training_told(training))
    return {
        "machine": where,
        "size": asdict(size),
        "checks": checks,
        "rows": rows,
        "left_out": {**left_out, **failed},
        "floors": {name: asdict(own) for name, own in floors.items()},
        "training": training,
    }


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a wrong one ends the process with 2 and a sentence."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="all of it small, on a CPU too")
    parser.add_argument("--scans", type=Path, help="arrays of real patients; else phantoms")
    parser.add_argument("--manifest", type=Path, help="the table that goes with --scans")
    parser.add_argument("--epochs", type=_count, help="of the training; else as published")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder to write to")
    options = parser.parse_args(arguments)
    if (options.scans is None) != (options.manifest is None):
        parser.error("--scans and --manifest go together; give both, or neither for phantoms")
    if os.environ.get("KERAS_BACKEND") != "jax":
        parser.error("this measures JAX; set KERAS_BACKEND=jax in the environment")
    return options


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of epochs; expected 1 or more")
    return int(text)


def _since(began: float) -> float:
    return time.perf_counter() - began


def main(arguments: Sequence[str]) -> int:
    options = options_of(arguments)
    size = QUICK if options.quick else FULL
    size = replace(size, epochs=options.epochs or size.epochs)
    # Several processes share the card, so that none may take most of its memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if importlib.util.find_spec("jax") is None:
        print("JAX is not installed; this measures nothing without it", file=sys.stderr)
        return 1
    try:
        found = run(size, quick=options.quick, scans=options.scans, manifest=options.manifest)
    except GliaflowError as error:
        print(error, file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
    (options.out / "gpu.md").write_text(page(found))
    print(f"\n{page(found)}\nWritten: {options.out / 'gpu.json'}, {options.out / 'gpu.md'}")
    return 0 if found["checks"]["all_hold"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
