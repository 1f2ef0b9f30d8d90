"""A training's state on disk after each epoch, so that what was killed goes on.

Lies outside the outs of dvc.yaml, which DVC deletes before a stage runs.
"""

import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adapters import files
from pipeline.domain import lineage, schedule
from pipeline.params import Params

NETWORK = Path(__file__).parent.parent / "network"


@dataclass(frozen=True)
class Checkpoint:
    """The last finished epoch.

    variables: of model and optimizer. best: those of the best epoch so far. mean: their mean
    over the epochs that are averaged, None before the first of them.
    rows: the curves up to here, one mapping an epoch.
    """

    variables: list[np.ndarray]
    best: list[np.ndarray]
    mean: list[np.ndarray] | None
    state: schedule.State
    rows: list[dict[str, Any]]


class Store:
    """Checkpoints of one training, named by a digest of all that shapes it.

    Args:
        root: folder for all trainings; what other digests left in it is removed when this
            one writes its first checkpoint.
        digest: another one never sees these checkpoints.
        network: number of the network that is trained, where a training makes several.
    """

    def __init__(self, root: Path, digest: str, network: int = 1):
        self._root = root
        self._own = digest[:16]
        self._folder = root / (self._own if network == 1 else f"{self._own}-{network}")

    def load(self) -> Checkpoint | None:
        """The last checkpoint, None where there is none or it was not written whole."""
        try:
            note = json.loads((self._folder / "state.json").read_text())
            return Checkpoint(
                variables=_read(self._folder / note["last"]),
                best=_read(self._folder / note["best"]),
                mean=_read(self._folder / note["mean"]) if note["mean"] else None,
                state=schedule.State(**note["state"]),
                rows=note["rows"],
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def save(
        self,
        variables: Sequence[np.ndarray],
        state: schedule.State,
        rows: list[dict[str, Any]],
        mean: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Write an epoch; the note that names its files is replaced last, in one step."""
        for other in self._root.glob("*"):
            if not other.name.startswith(self._own):
                shutil.rmtree(other, ignore_errors=True)
        epoch = rows[-1]["epoch"]
        note = {
            "last": f"epoch-{epoch}.npz",
            "best": f"epoch-{state.best_epoch}.npz",
            "mean": None if mean is None else f"epoch-{epoch}-mean.npz",
            "state": asdict(state),
            "rows": rows,
        }
        _write(self._folder / note["last"], variables)
        if mean is not None:
            _write(self._folder / note["mean"], mean)
        files.write_text(self._folder / "state.json", json.dumps(note))
        for path in self._folder.glob("epoch-*.npz"):
            if path.name not in (note["last"], note["best"], note["mean"]):
                path.unlink()

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def training_digest(params: Params, *, manifest: Path, splits: Path) -> str:
    """Names a training before its weights are known, by all that shapes them."""
    network = {path.name: path.read_bytes() for path in sorted(NETWORK.glob("*.py"))}
    return lineage.of_mapping(
        {
            "network": lineage.of_files(network),
            "manifest": files.sha256(manifest),
            "splits": files.sha256(splits),
            "train": params.train.model_dump(mode="json"),
        }
    )


def _write(path: Path, variables: Sequence[np.ndarray]) -> None:
    with files.replacing(path) as beside, beside.open("wb") as stream:
        np.savez(stream, *variables)


def _read(path: Path) -> list[np.ndarray]:
    with np.load(path) as stored:
        return [stored[f"arr_{i}"] for i in range(len(stored.files))]
