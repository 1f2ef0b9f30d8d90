"""How `bench.gpu` times: every system in a process of its own, repeats alternating, and the floor."""

import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench import floor, gpu_work, work
from pipeline.errors import GliaflowError

WARM_UP = 2  # epochs: the first compiles
VALUE_BYTES = {"float32": 4, "bfloat16": 2}
NO_PYTORCH = "PyTorch is not installed"
NOT_QUICK = "left for a run without --quick"
PEERS = {
    "PyTorch float32": {"bfloat16": False, "mode": None},
    "PyTorch bfloat16": {"bfloat16": True, "mode": None},
    "PyTorch compiled float32": {"bfloat16": False, "mode": "default"},
    "PyTorch compiled bfloat16": {"bfloat16": True, "mode": "default"},
    "PyTorch compiled bfloat16, CUDA graphs": {"bfloat16": True, "mode": "reduce-overhead"},
}


def ours(size: gpu_work.Size, epoch: gpu_work.Epoch, precision: str) -> Callable[[], object]:
    from pipeline.network import steps

    source, own = gpu_work.placed(epoch.pool), steps.make(gpu_work.network_of(size, precision))
    return lambda: gpu_work.train(own, source, epoch)


def theirs(
    size: gpu_work.Size, epoch: gpu_work.Epoch, options: dict[str, Any]
) -> Callable[[], object]:
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

    def __init__(self, name: str, size: gpu_work.Size, epoch: gpu_work.Epoch):
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


def serve(pipe: Any, name: str, size: gpu_work.Size, epoch: gpu_work.Epoch) -> None:
    """What a worker's process does: seconds of an epoch for each word that comes, or what failed."""
    run = None
    try:
        while pipe.recv():
            run = run or _made(name, size, epoch)
            began = time.perf_counter()
            run()
            pipe.send(gpu_work.since(began))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {(str(error).strip().splitlines() or ['?'])[0]}")


def _made(name: str, size: gpu_work.Size, epoch: gpu_work.Epoch) -> Callable[[], object]:
    if name in PEERS:
        return theirs(size, epoch, PEERS[name])
    return ours(size, epoch, name.removeprefix("gliaflow "))


def measure(
    names: Sequence[str], size: gpu_work.Size, epoch: gpu_work.Epoch
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
                    gpu_work.say(f"{name}: epoch {len(found[name])}: {found[name][-1]:.3f} s")
                except GliaflowError as error:
                    failed[name] = str(error)
                    gpu_work.say(f"{name}: left out: {error}")
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


def floors_of(size: gpu_work.Size, card: floor.Card | None) -> dict[str, floor.Floor]:
    """The floor of a step by precision, said."""
    from pipeline.network import lean

    network = lean.build(image_size=size.side, filters=size.filters)
    trained = sum(int(np.prod(one.shape)) for one in network.trainable_variables)
    layers, found = floor.layers_of(network), {}
    for precision, value_bytes in VALUE_BYTES.items():
        own = floor.of_step(layers, batch=work.BATCH, value_bytes=value_bytes, parameters=trained)
        found[precision] = own
        gpu_work.say(_floor_told(own, precision, card))
    return found


def _floor_told(own: floor.Floor, precision: str, card: floor.Card | None) -> str:
    text = (
        f"floor of a step, {precision}: {own.flops / 1e9:.4g} GFLOP; {own.least_bytes / 1e9:.3g} GB "
        f"by convolutions alone, {own.layered_bytes / 1e9:.3g} GB layer by layer"
    )
    if card is None:
        return f"{text}; the card's peaks are unknown"
    return f"{text}; on this card {floor.least_seconds(own, card, precision) * 1e3:.3g} ms"
