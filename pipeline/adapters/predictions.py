"""Predicted masks of whole patients in one small file, 8 pixels a byte."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.adapters import files
from pipeline.errors import GliaflowError


def save(path: Path, masks: Mapping[str, np.ndarray]) -> None:
    """Write masks, patient to (S, H, W) bool; equal masks give equal bytes."""
    packed = {}
    for patient, mask in masks.items():
        packed[f"{patient}/bits"] = np.packbits(mask)
        packed[f"{patient}/shape"] = np.array(mask.shape)
    with files.replacing(path) as beside, beside.open("wb") as stream:
        np.savez_compressed(stream, **packed)


def load(path: Path, patient: str) -> np.ndarray:
    """The mask of a patient, (S, H, W) bool.

    Raises:
        GliaflowError: the file or the patient is not there.
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
