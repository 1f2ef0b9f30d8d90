"""`KERAS_BACKEND=jax python -m bench.gpu`: what one graphics card makes of gliaflow.

Checks first, then speed beside PyTorch and beside what the card could do, then a training as
long as the published one. Every system that is timed runs in a process of its own, repeats
alternating. Needs what `pipeline.stages.train` needs, JAX, and for the peers' rows PyTorch.
With `--quick` all of it runs small, on a CPU too. Writes gpu.json and gpu.md.

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
from typing import Any

import numpy as np

from bench import floor, gpu_checks, gpu_timing, gpu_work, work
from pipeline.errors import GliaflowError

PACKAGES = ("jax", "keras", "torch", "numpy")


def schedule_of(size: gpu_work.Size, pool: gpu_work.Pool, precision: str) -> dict[str, Any]:
    """Train as `train` does, augmented and judged each epoch, and time it."""
    from pipeline.domain import schedule
    from pipeline.network import augment, recipe

    network = gpu_work.network_of(size, precision)
    rules = schedule.Rules(
        kind="plateau", epochs=size.epochs, learning_rate=work.LEARNING_RATE,
        patience=size.epochs, plateau_patience=10, plateau_factor=0.5, min_learning_rate=1e-5,
    )  # fmt: skip
    epochs = recipe.epochs(
        network,
        train=gpu_work.placed(pool.part(0, size.slices)),
        validation=gpu_work.placed(pool.part(size.slices, None)),
        batch=work.BATCH,
        balanced=False,
        augmentation=augment.Settings(**gpu_work.AUGMENTATION),
        loss=gpu_work.loss(),
        rules=rules,
        state=schedule.start(rules),
        done=0,
        seed=gpu_work.SEED,
    )
    marks, last = [time.perf_counter()], None
    # Cut off before the end, where a training that found no tumour is refused: this one is timed.
    for last, _ in itertools.islice(epochs, size.epochs):
        marks.append(time.perf_counter())
        if last.epoch % max(size.epochs // 10, 1) == 0:
            gpu_work.say(
                f"training: epoch {last.epoch}: loss {last.loss:.4f}, {gpu_work.since(marks[0]):.1f} s"
            )
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


def run(
    size: gpu_work.Size,
    *,
    quick: bool,
    scans: Path | None,
    manifest: Path | None,
    unwanted: Sequence[str] = (),
) -> dict[str, Any]:
    """All of it, as gpu.json holds it."""
    where, precision = machine(), gpu_work.best_precision()
    card = floor.card(where["card"])
    gpu_work.say(f"{where['card']}; peaks {'known' if card else 'unknown'}; {where['versions']}")
    pool = gpu_work.pool_of(size, scans, manifest)
    checks = gpu_checks.check(size, pool, precision)
    precisions, epoch = gpu_timing.systems(precision), gpu_work.epoch_of(pool.part(0, size.slices))
    left_out = gpu_timing.left_out_of(list(precisions), quick=quick)
    left_out |= dict.fromkeys(unwanted, "asked for by --leave-out")
    for name, why in left_out.items():
        gpu_work.say(f"{name}: left out: {why}")
    timed = [name for name in precisions if name not in left_out]
    seconds, failed = gpu_timing.measure(timed, size, epoch)
    floors = gpu_timing.floors_of(size, card)
    rows = gpu_timing.rows_of(
        seconds, steps=len(epoch.chosen), precisions=precisions, floors=floors, card=card
    )
    training = schedule_of(size, pool, precision)
    gpu_work.say(training_told(training))
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
    parser.add_argument(
        "--leave-out", action="append", default=[], metavar="NAME", choices=gpu_timing.PEERS,
        help="a peer that is not timed, by its name in the table; may be given again",
    )  # fmt: skip
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


def main(arguments: Sequence[str]) -> int:
    options = options_of(arguments)
    size = gpu_work.QUICK if options.quick else gpu_work.FULL
    size = replace(size, epochs=options.epochs or size.epochs)
    # Several processes share the card, so that none may take most of its memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if importlib.util.find_spec("jax") is None:
        print("JAX is not installed; this measures nothing without it", file=sys.stderr)
        return 1
    try:
        found = run(
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
    (options.out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
    (options.out / "gpu.md").write_text(page(found))
    print(f"\n{page(found)}\nWritten: {options.out / 'gpu.json'}, {options.out / 'gpu.md'}")
    return 0 if found["checks"]["all_hold"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
