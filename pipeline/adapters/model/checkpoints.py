"""Store the state of a training on disk after each epoch, so that it can resume.

The files are not outputs in dvc.yaml: DVC deletes outputs before a stage runs.
"""

import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pipeline.adapters.storage import files
from pipeline.domain import lineage, schedule
from pipeline.domain.training_state import Checkpoint
from pipeline.params import Params


class Store:
    """Checkpoints of one network of a training.

    Args:
        root: folder of all trainings. Checkpoints of other digests are removed when this
            training writes its first one.
        digest: names the training by everything that shapes it; see `training_digest`.
        network: number of the network in the ensemble, from 1.
    """

    def __init__(self, root: Path, digest: str, network: int = 1):
        self._root = root
        self._digest = digest[:16]
        self._folder = root / (self._digest if network == 1 else f"{self._digest}-{network}")

    def load(self) -> Checkpoint | None:
        """Return the last checkpoint; None if there is none or a file of it is damaged."""
        try:
            record = json.loads((self._folder / "state.json").read_text())
            return Checkpoint(
                variables=_read(self._folder / record["last"]),
                best=_read(self._folder / record["best"]),
                mean=_read(self._folder / record["mean"]) if record["mean"] else None,
                state=schedule.State(**record["state"]),
                rows=record["rows"],
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the state after an epoch. The file that names the others is replaced last.

        Variables of an earlier best epoch are on disk already, since it was the last one.
        """
        for other in self._root.glob("*"):
            if not other.name.startswith(self._digest):
                shutil.rmtree(other, ignore_errors=True)
        epoch = checkpoint.rows[-1]["epoch"]
        last, best = f"epoch-{epoch}.npz", f"epoch-{checkpoint.state.best_epoch}.npz"
        mean = None
        _write(self._folder / last, checkpoint.variables)
        if checkpoint.mean is not None:
            mean = f"epoch-{epoch}-mean.npz"
            _write(self._folder / mean, checkpoint.mean)
        record = {
            "last": last,
            "best": best,
            "mean": mean,
            "state": asdict(checkpoint.state),
            "rows": checkpoint.rows,
        }
        files.write_text(self._folder / "state.json", json.dumps(record))
        for path in self._folder.glob("epoch-*.npz"):
            if path.name not in (last, best, mean):
                path.unlink()

    def clear(self) -> None:
        """Remove all checkpoints of this network."""
        shutil.rmtree(self._folder, ignore_errors=True)


def training_digest(params: Params, *, code: str, manifest: Path, splits: Path) -> str:
    """Name a training, before its weights are known, by everything that shapes them.

    Covers the Keras backend in use as well: another backend rounds differently.

    Args:
        code: digest of the modules that the stage `train` depends on.
        manifest, splits: files that the stage reads.

    Returns:
        A SHA-256 digest in hex.
    """
    import keras

    return lineage.digest_of_mapping(
        {
            "code": code,
            "backend": keras.backend.backend(),
            "manifest": files.sha256(manifest),
            "splits": files.sha256(splits),
            "train": params.train.model_dump(mode="json"),
        }
    )


def _write(path: Path, variables: Sequence[np.ndarray]) -> None:
    with files.atomic_write(path) as beside, beside.open("wb") as stream:
        np.savez(stream, *variables)


def _read(path: Path) -> list[np.ndarray]:
    with np.load(path) as stored:
        return [stored[f"arr_{i}"] for i in range(len(stored.files))]
