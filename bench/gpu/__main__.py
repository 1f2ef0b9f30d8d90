"""`KERAS_BACKEND=jax python -m bench.gpu`: benchmark gliaflow on one GPU.

Runs checks, then times training beside PyTorch and beside the peak rates of the card, then
trains for as long as the published system does. Every timed system runs in its own process;
repeats alternate. Needs what `pipeline.stages.train` needs, JAX, and PyTorch for the peers'
rows. With `--quick` everything runs small, on a CPU too. Writes gpu.json and gpu.md.

N slices of S x S pixels, T steps of B slices.
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import workload
from bench.gpu import checks, gpu_work, roofline, timing
from pipeline.errors import GliaflowError

if TYPE_CHECKING:
    from pipeline.network.epoch_loop import EpochConfig, EpochResult

PACKAGES = ("jax", "keras", "torch", "numpy")


def schedule_of(size: gpu_work.Size, pool: gpu_work.Pool, precision: str) -> dict[str, Any]:
    """Train as `train` does, with augmentation and validation in each epoch, and time it."""
    from pipeline.domain import schedule
    from pipeline.network import epoch_loop

    config = _epoch_config(size)
    epochs = epoch_loop.run_epochs(
        gpu_work.network_of(size, precision),
        train=gpu_work.on_device(pool.part(0, size.slices)),
        validation=gpu_work.on_device(pool.part(size.slices, None)),
        config=config,
        state=schedule.initial_state(config.rules),
        done=0,
    )
    marks = [time.perf_counter()]
    results: list[EpochResult] = []
    # Left before the loop ends: there it refuses a network that found no tumour, which does not
    # matter to a timing.
    for result, _ in itertools.islice(epochs, size.epochs):
        marks.append(time.perf_counter())
        results.append(result)
        if result.epoch % max(size.epochs // 10, 1) == 0:
            seconds = gpu_work.since(marks[0])
            gpu_work.say(f"training: epoch {result.epoch}: loss {result.loss:.4f}, {seconds:.1f} s")
    return {
        "precision": precision,
        "epochs": size.epochs,
        "slices": size.slices,
        "judged": size.judged,
        "loss": results[-1].loss,
        "val_tversky": results[-1].val_tversky,
        **_speed(np.diff(marks).tolist(), size.slices),
    }


def _epoch_config(size: gpu_work.Size) -> "EpochConfig":
    from pipeline.domain import schedule
    from pipeline.network import augment, epoch_loop

    rules = schedule.Rules(
        kind="plateau",
        epochs=size.epochs,
        learning_rate=workload.LEARNING_RATE,
        patience=size.epochs,
        plateau_patience=10,
        plateau_factor=0.5,
        min_learning_rate=1e-5,
    )
    return epoch_loop.EpochConfig(
        batch=workload.BATCH,
        balanced=False,
        augmentation=augment.Augmentation(**gpu_work.AUGMENTATION),
        loss=gpu_work.loss(),
        rules=rules,
        seed=gpu_work.SEED,
    )


def _speed(seconds: list[float], slices: int) -> dict[str, float | None]:
    """Return the speed of a training, with and without compiling.

    The first epoch includes compiling; without it, it counts as long as the median of the others.

    Args:
        seconds: of each epoch.
        slices: per epoch.
    """
    if len(seconds) == 1:
        return {"seconds_with_compiling": seconds[0], "seconds": None, "images_per_second": None}
    without_compiling = sum(seconds[1:]) + statistics.median(seconds[1:])
    return {
        "seconds_with_compiling": sum(seconds),
        "seconds": without_compiling,
        "images_per_second": len(seconds) * slices / without_compiling,
    }


def training_text(training: dict[str, Any]) -> str:
    """Describe what `schedule_of` returned."""
    text = (
        f"training, {training['epochs']} x {training['slices']} slices in {training['precision']}, "
        f"each epoch validated on {training['judged']} more: "
        f"{training['seconds_with_compiling']:.1f} s"
    )
    if training["seconds"] is not None:
        text += (
            f", {training['seconds']:.1f} s without compiling, "
            f"{training['images_per_second']:.0f} images per second"
        )
    return f"{text}; final loss {training['loss']:.4f}"


def machine() -> dict[str, Any]:
    """Describe the card and the software that the numbers were taken on."""
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


def page(result: dict[str, Any]) -> str:
    """Return the table in Markdown, with the checks and the training below.

    Args:
        result: content of gpu.json.
    """
    where, size = result["machine"], result["size"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    lines = [
        f"Training, {size['side']}x{size['side']} px, filters {', '.join(map(str, size['filters']))}, "
        f"batch {workload.BATCH}, slices resident and augmented on {where['card']}; "
        f"epochs of {size['slices'] // workload.BATCH} steps.",
        "",
        "| system | images per second: median (lowest to highest) | of our best | "
        "ms per step (share of the floor) | compiling, s | TFLOP/s | GB/s, least to layered |",
        "|---|---|---|---|---|---|---|",
        *map(_table_row, result["rows"]),
        "",
        *[f"- Left out: {name}: {why}." for name, why in result["left_out"].items()],
        *_check_lines(result["checks"]),
        f"- T{training_text(result['training'])[1:]}.",
        "",
        f"{where['date']}, {where['card']}, Python {where['python']}, {versions}; "
        f"{size['repeats']} epochs timed of each system, alternating.",
    ]
    return "\n".join(lines) + "\n"


def _table_row(row: dict[str, Any]) -> str:
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


def _check_lines(results: dict[str, Any]) -> list[str]:
    apart = ", ".join(f"{name} {value:.2g}" for name, value in results["outputs_apart"].items())
    twice = checks.comparison_text(results["epoch_twice_equal"], results["epoch_twice_apart"])
    return [
        f"- Largest difference of outputs from the plain network in exact float32: {apart}.",
        f"- Mirrored slices: {results['flip_wrong']} values differ from numpy's. One epoch, trained "
        f"twice: {twice}.",
    ]


def run(
    size: gpu_work.Size,
    *,
    quick: bool,
    scans: Path | None,
    manifest: Path | None,
    unwanted: Sequence[str] = (),
) -> dict[str, Any]:
    """Run the whole benchmark; return the content of gpu.json.

    Args:
        unwanted: names of peers that are not timed.
    """
    where, precision = machine(), gpu_work.best_precision()
    card = roofline.card(where["card"])
    gpu_work.say(
        f"{where['card']}; peak rates {'known' if card else 'unknown'}; {where['versions']}"
    )
    pool = gpu_work.pool_of(size, scans, manifest)
    check_results = checks.check(size, pool, precision)
    precisions, epoch = timing.systems(precision), gpu_work.epoch_of(pool.part(0, size.slices))
    left_out = timing.left_out_of(list(precisions), quick=quick)
    left_out |= dict.fromkeys(unwanted, "asked for by --leave-out")
    for name, why in left_out.items():
        gpu_work.say(f"{name}: left out: {why}")
    timed = [name for name in precisions if name not in left_out]
    seconds, failed = timing.measure(timed, size, epoch)
    floors = timing.floors_of(size, card)
    rows = timing.rows_of(
        seconds, steps=len(epoch.chosen), precisions=precisions, floors=floors, card=card
    )
    training = schedule_of(size, pool, precision)
    gpu_work.say(training_text(training))
    return {
        "machine": where,
        "size": asdict(size),
        "checks": check_results,
        "rows": rows,
        "left_out": {**left_out, **failed},
        "floors": {name: asdict(floor) for name, floor in floors.items()},
        "training": training,
    }


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; if it is wrong, end the process with an error and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="run everything small, on a CPU too")
    parser.add_argument("--scans", type=Path, help="arrays of real patients; default: the phantom")
    parser.add_argument("--manifest", type=Path, help="the table that goes with --scans")
    parser.add_argument(
        "--epochs", type=_epoch_count, help="epochs of the training; default: as published"
    )
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="NAME",
        choices=timing.PEERS,
        help="do not time this peer, by its name in the table; may be repeated",
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder to write to")
    options = parser.parse_args(arguments)
    if (options.scans is None) != (options.manifest is None):
        parser.error("--scans and --manifest go together; give both, or neither for the phantom")
    if os.environ.get("KERAS_BACKEND") != "jax":
        parser.error("this benchmark measures JAX; set KERAS_BACKEND=jax in the environment")
    return options


def _epoch_count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of epochs; expected a whole number from 1"
        )
    return int(text)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and write its files; return the exit code, 1 if a check does not hold."""
    options = options_of(arguments)
    size = gpu_work.QUICK if options.quick else gpu_work.FULL
    size = replace(size, epochs=options.epochs or size.epochs)
    # Several processes share the card, so none may reserve most of its memory at the start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if importlib.util.find_spec("jax") is None:
        print("JAX is not installed, and this benchmark measures JAX; install it", file=sys.stderr)
        return 1
    try:
        result = run(
            size,
            quick=options.quick,
            scans=options.scans,
            manifest=options.manifest,
            unwanted=options.leave_out,
        )
    except GliaflowError as error:
        print(error, file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "gpu.md").write_text(page(result))
    print(f"\n{page(result)}\nWritten: {options.out / 'gpu.json'}, {options.out / 'gpu.md'}")
    return 0 if result["checks"]["all_hold"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
