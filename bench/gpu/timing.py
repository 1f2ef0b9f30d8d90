"""Timing of `bench.gpu`: each system in its own process, repeats alternating; and the floor."""

import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench import workload
from bench.gpu import gpu_work, roofline
from pipeline.errors import GliaflowError

WARM_UP = 2  # epochs: the first compiles
VALUE_BYTES = {"float32": 4, "bfloat16": 2}
NO_PYTORCH = "PyTorch is not installed"
NOT_QUICK = "not timed with --quick"
PEERS: dict[str, dict[str, Any]] = {
    "PyTorch float32": {"bfloat16": False, "mode": None},
    "PyTorch bfloat16": {"bfloat16": True, "mode": None},
    "PyTorch compiled float32": {"bfloat16": False, "mode": "default"},
    "PyTorch compiled bfloat16": {"bfloat16": True, "mode": "default"},
    "PyTorch compiled bfloat16, CUDA graphs": {"bfloat16": True, "mode": "reduce-overhead"},
}


def ours(size: gpu_work.Size, epoch: gpu_work.Epoch, precision: str) -> Callable[[], object]:
    """Return a function that trains gliaflow's network for one epoch."""
    from pipeline.network import steps

    source = gpu_work.on_device(epoch.pool)
    compiled = steps.compile_steps(gpu_work.network_of(size, precision))
    return lambda: gpu_work.train(compiled, source, epoch)


def theirs(
    size: gpu_work.Size, epoch: gpu_work.Epoch, options: dict[str, Any]
) -> Callable[[], object]:
    """Return a function that trains PyTorch's network for one epoch."""
    import torch

    from bench.peers import resident

    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, masks, _ = epoch.pool
    train = resident(images, masks, device=device, filters=size.filters, **options)
    return lambda: train(epoch.chosen, epoch.augmentation)


def systems(best: str) -> dict[str, str]:
    """Map every system to its precision, gliaflow's first.

    Args:
        best: the fastest precision that the machine has.
    """
    precisions = dict.fromkeys([best, "float32"])
    peers = {n: "bfloat16" if options["bfloat16"] else "float32" for n, options in PEERS.items()}
    return {**{f"gliaflow {precision}": precision for precision in precisions}, **peers}


def left_out_of(names: Sequence[str], *, quick: bool) -> dict[str, str]:
    """Map the systems that are not timed to the reason."""
    peers = [name for name in names if name in PEERS]
    if importlib.util.find_spec("torch") is None:
        return dict.fromkeys(peers, NO_PYTORCH)
    if quick:
        return {name: NOT_QUICK for name in peers if PEERS[name]["mode"]}
    return {}


class Worker:
    """A system in its own process; it trains one epoch per request."""

    def __init__(self, name: str, size: gpu_work.Size, epoch: gpu_work.Epoch):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, name, size, epoch), daemon=True)
        self._process.start()
        other.close()

    def seconds(self) -> float:
        """Train one epoch; return its seconds.

        Raises:
            GliaflowError: the system does not run here.
        """
        try:
            self._pipe.send("again")
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise GliaflowError("its process ended without an error message") from error
        if isinstance(answer, str):
            raise GliaflowError(answer)
        return float(answer)

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def serve(pipe: Any, name: str, size: gpu_work.Size, epoch: gpu_work.Epoch) -> None:
    """Run in a worker's process: answer each request with seconds, or the first error's text."""
    run = None
    try:
        while pipe.recv():
            run = run or _prepare(name, size, epoch)
            start = time.perf_counter()
            run()
            pipe.send(gpu_work.since(start))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {(str(error).strip().splitlines() or ['?'])[0]}")


def _prepare(name: str, size: gpu_work.Size, epoch: gpu_work.Epoch) -> Callable[[], object]:
    if name in PEERS:
        return theirs(size, epoch, PEERS[name])
    return ours(size, epoch, name.removeprefix("gliaflow "))


def measure(
    names: Sequence[str], size: gpu_work.Size, epoch: gpu_work.Epoch
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Time all systems, one epoch of each in turn.

    Returns:
        Seconds of each epoch by system, the first with compiling; and why a system failed.
    """
    workers = {name: Worker(name, size, epoch) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    try:
        for _ in range(WARM_UP + size.repeats):
            for name in [name for name in names if name not in failed]:
                try:
                    seconds[name].append(workers[name].seconds())
                    gpu_work.say(f"{name}: epoch {len(seconds[name])}: {seconds[name][-1]:.3f} s")
                except GliaflowError as error:
                    failed[name] = str(error)
                    gpu_work.say(f"{name}: left out: {error}")
    finally:
        for worker in workers.values():
            worker.end()
    return {name: times for name, times in seconds.items() if name not in failed}, failed


def rows_of(
    seconds: dict[str, list[float]],
    *,
    steps: int,
    precisions: dict[str, str],
    floors: dict[str, roofline.Floor],
    card: roofline.Card | None,
) -> list[dict[str, Any]]:
    """Return a row per system, from the seconds of its epochs of `steps` steps."""
    rows = []
    for name, times in seconds.items():
        precision, repeats = precisions[name], times[WARM_UP:]
        median = statistics.median(repeats)
        speeds = [steps * workload.BATCH / s for s in (median, max(repeats), min(repeats))]
        rows.append(
            {
                "system": name,
                "precision": precision,
                "images_per_second": dict(zip(("median", "low", "high"), speeds, strict=True)),
                "step_ms": median / steps * 1e3,
                "compile_seconds": max(times[0] - median, 0.0),
                "epoch_seconds": times,
                **roofline.reached(floors[precision], median / steps, card, precision),
            }
        )
    best = max((_speed(row) for row in rows if row["system"] not in PEERS), default=None)
    return [{**row, "ratio_to_ours": _speed(row) / best if best else None} for row in rows]


def _speed(row: dict[str, Any]) -> float:
    return float(row["images_per_second"]["median"])


def floors_of(size: gpu_work.Size, card: roofline.Card | None) -> dict[str, roofline.Floor]:
    """Compute and print the floor of a training step, by precision."""
    from pipeline.network import fused

    network = fused.build(image_size=size.side, filters=size.filters)
    trained = sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)
    layers, floors = roofline.layers_of(network), {}
    for precision, value_bytes in VALUE_BYTES.items():
        floors[precision] = roofline.of_step(
            layers, batch=workload.BATCH, value_bytes=value_bytes, parameters=trained
        )
        gpu_work.say(_floor_text(floors[precision], precision, card))
    return floors


def _floor_text(floor: roofline.Floor, precision: str, card: roofline.Card | None) -> str:
    text = (
        f"floor of a step, {precision}: {floor.flops / 1e9:.4g} GFLOP; "
        f"{floor.least_bytes / 1e9:.3g} GB by convolutions alone, "
        f"{floor.layered_bytes / 1e9:.3g} GB layer by layer"
    )
    if card is None:
        return f"{text}; the card's peak rates are unknown"
    return f"{text}; at least {roofline.least_seconds(floor, card, precision) * 1e3:.3g} ms here"
