"""Predicted masks of whole patients in one small file, 8 pixels per byte."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.adapters.storage import files
from pipeline.errors import GliaflowError


def save_masks(path: Path, masks: Mapping[str, np.ndarray]) -> None:
    """Write masks, patient to (S, H, W) bool; equal masks give equal bytes."""
    packed: dict[str, np.ndarray] = {}
    for patient, mask in masks.items():
        packed[f"{patient}/bits"] = np.packbits(mask)
        packed[f"{patient}/shape"] = np.array(mask.shape)
    with files.atomic_write(path) as beside, beside.open("wb") as stream:
        # The stub mistakes named arrays for the option `allow_pickle`, a bool.
        np.savez_compressed(stream, **packed)  # type: ignore[arg-type]


def load_mask(path: Path, patient: str) -> np.ndarray:
    """Return the mask of a patient, (S, H, W) bool.

    Raises:
        GliaflowError: the file is missing or damaged, or holds no mask of this patient.
    """
    try:
        with np.load(path) as stored:
            shape = stored[f"{patient}/shape"]
            bits = stored[f"{patient}/bits"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise GliaflowError(
            f"{path} holds no prediction for {patient} ({error}); run `dvc repro evaluate`"
        ) from error
    return np.unpackbits(bits, count=int(shape.prod())).reshape(shape).astype(bool)
