"""Scans as arrays on disk, one folder per patient, memory-mapped rather than read.

S slices, H x W pixels: `images.npy` (S, H, W, 3) uint8 and `masks.npy` (S, H, W) uint8,
0 or 1. Slices are in the order of their numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.adapters.storage import files
from pipeline.domain import intensity
from pipeline.errors import GliaflowError


@dataclass(frozen=True)
class Scan:
    """All slices of a patient.

    images: (S, H, W, 3) uint8. masks: (S, H, W) uint8, 0 or 1.
    """

    images: np.ndarray
    masks: np.ndarray


def save(folder: Path, patient: str, scan: Scan) -> None:
    """Write a patient's arrays to `folder/patient`, atomically."""
    with files.atomic_write(folder / patient) as temporary:
        temporary.mkdir()
        np.save(temporary / "images.npy", scan.images)
        np.save(temporary / "masks.npy", scan.masks)


def open_scan(folder: Path, patient: str) -> Scan:
    """Memory-map a patient's arrays, read-only.

    Raises:
        GliaflowError: the arrays are missing or corrupt.
    """
    try:
        images = np.load(folder / patient / "images.npy", mmap_mode="r")
        masks = np.load(folder / patient / "masks.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise GliaflowError(
            f"{folder / patient} holds no readable arrays ({error}); run `dvc repro ingest`"
        ) from error
    return Scan(images, masks)


def shrink_images(images: np.ndarray, factor: int) -> np.ndarray:
    """Downsample images by averaging blocks of factor x factor pixels.

    Args:
        images: (N, H, W, 3) uint8.
        factor: divides H and W; 1 changes nothing.

    Returns:
        (N, H / factor, W / factor, 3) uint8, rounded.
    """
    if factor == 1:
        return np.asarray(images)
    return _rounded(_block_means(images, factor))


def shrink_masks(masks: np.ndarray, factor: int) -> np.ndarray:
    """Downsample masks to the share of tumour in blocks of factor x factor pixels.

    Args:
        masks: (N, H, W) uint8, 0 or 1.
        factor: divides H and W.

    Returns:
        (N, H / factor, W / factor) uint8: the share times 255, rounded.
    """
    if factor == 1:
        return np.asarray(masks) * np.uint8(255)
    return _rounded(_block_means(masks, factor) * 255)


def load_slices(
    folder: Path, chosen: Iterable[tuple[str, np.ndarray]], *, factor: int, by_scan: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read slices of several patients into memory, downsampled by `factor`.

    Args:
        folder: holds the scans' arrays.
        chosen: (patient, positions of its slices), in the order of the result.
        factor: divides H and W.
        by_scan: normalise the intensity of each scan, see `domain.intensity`.

    Returns:
        images: (N, H / factor, W / factor, 3) uint8.
        masks: (N, H / factor, W / factor) uint8, share of tumour times 255.
        patients: (N,) index of each slice's patient in `chosen`.
    """
    images, masks, patients = [], [], []
    for number, (patient, positions) in enumerate(chosen):
        scan = open_scan(folder, patient)
        selected = scan.images[positions]
        if by_scan:
            selected = intensity.apply_scale(selected, intensity.estimate_scale(scan.images))
        images.append(shrink_images(selected, factor))
        masks.append(shrink_masks(scan.masks[positions], factor))
        patients.append(np.full(len(positions), number))
    return np.concatenate(images), np.concatenate(masks), np.concatenate(patients)


def _block_means(pixels: np.ndarray, factor: int) -> np.ndarray:
    count, height, width, *channels = pixels.shape
    blocks = pixels.reshape(count, height // factor, factor, width // factor, factor, *channels)
    means: np.ndarray = blocks.mean(axis=(2, 4), dtype=np.float32)
    return means


def _rounded(pixels: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.rint(pixels).astype(np.uint8)
    return rounded
