"""Scans as arrays on disk, one folder a patient, mapped into memory rather than read.

S slices, H x W pixels: `images.npy` (S, H, W, 3) uint8 and `masks.npy` (S, H, W) uint8,
0 or 1, slices in the order of their numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.adapters import files
from pipeline.domain import intensity
from pipeline.errors import GliaflowError


@dataclass(frozen=True)
class Scan:
    """images: (S, H, W, 3) uint8; masks: (S, H, W) uint8, 0 or 1."""

    images: np.ndarray
    masks: np.ndarray


def save(folder: Path, patient: str, scan: Scan) -> None:
    with files.replacing(folder / patient) as beside:
        beside.mkdir()
        np.save(beside / "images.npy", scan.images)
        np.save(beside / "masks.npy", scan.masks)


def open_scan(folder: Path, patient: str) -> Scan:
    """Map a patient's arrays.

    Raises:
        GliaflowError: they are not there or broken.
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
    """Average blocks of factor x factor pixels: (N, H, W, 3) uint8 to the same, rounded."""
    if factor == 1:
        return np.asarray(images)
    return np.rint(_block_means(images, factor)).astype(np.uint8)


def shrink_masks(masks: np.ndarray, factor: int) -> np.ndarray:
    """Share of tumour in blocks of factor x factor pixels, times 255: (N, H, W) 0 or 1 to uint8."""
    if factor == 1:
        return np.asarray(masks) * np.uint8(255)
    return np.rint(_block_means(masks, factor) * 255).astype(np.uint8)


def load(
    folder: Path, chosen: Iterable[tuple[str, np.ndarray]], *, factor: int, by_scan: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read slices of several patients into memory, made smaller by `factor`.

    Args:
        chosen: (patient, positions of its slices).
        by_scan: bring each scan to one scale of brightness, see `domain.intensity`.

    Returns:
        images (N, H / factor, W / factor, 3) uint8, masks (N, H / factor, W / factor) uint8,
        share of tumour times 255, and the number of each slice's patient, (N,).
    """
    images, masks, patients = [], [], []
    for number, (patient, positions) in enumerate(chosen):
        scan = open_scan(folder, patient)
        shown = scan.images[positions]
        if by_scan:
            shown = intensity.apply(shown, intensity.of_scan(scan.images))
        images.append(shrink_images(shown, factor))
        masks.append(shrink_masks(scan.masks[positions], factor))
        patients.append(np.full(len(positions), number))
    return np.concatenate(images), np.concatenate(masks), np.concatenate(patients)


def _block_means(pixels: np.ndarray, factor: int) -> np.ndarray:
    n, height, width, *rest = pixels.shape
    blocks = pixels.reshape(n, height // factor, factor, width // factor, factor, *rest)
    return blocks.mean(axis=(2, 4), dtype=np.float32)
