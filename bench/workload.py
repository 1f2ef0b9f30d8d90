"""The work that every system is timed on: one batch of random slices, and scans made of it.

B = 16 slices of 256 x 256 pixels, 3 channels; masks with 3 % tumour pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BATCH, SIDE = 16, 256
PATIENTS = 4
UNCOMPRESSED = (259, 1)  # TIFFTAG_COMPRESSION: none, as in the LGG data set
SLICES = {"train": BATCH, "predict": BATCH, "segment": PATIENTS * BATCH}  # per call
FILTERS = (16, 32, 64, 128, 256)
MISSED_WEIGHT, EXPONENT, LEARNING_RATE = 0.7, 0.75, 0.001


@dataclass(frozen=True)
class System:
    """One implementation of the work.

    train: takes one training step. predict: predicts one batch. segment: reads PATIENTS scans
    of BATCH slices from a folder and writes their masks to another. parameters: of its network.
    """

    train: Callable[[], object]
    predict: Callable[[], object]
    segment: Callable[[Path, Path], object]
    parameters: int


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Return (B, S, S, 3) uint8 slices and (B, S, S, 1) float32 masks, 0 or 1."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    return images, (rng.random((BATCH, SIDE, SIDE, 1)) < 0.03).astype(np.float32)


def write_scans(folder: Path) -> None:
    """Write PATIENTS scans of BATCH slices each, in the users' layout, without masks.

    Files are `<patient>/<patient>_<n>.tif`; all patients have the same slices.
    """
    import cv2

    images, _ = batch()
    for number in range(PATIENTS):
        patient = f"BENCH_AX_{number:04d}"
        (folder / patient).mkdir(parents=True)
        for position, image in enumerate(images, start=1):
            path = folder / patient / f"{patient}_{position}.tif"
            cv2.imwrite(str(path), image, UNCOMPRESSED)


def by_files(folder: Path, out: Path, predict: Callable[[np.ndarray], np.ndarray]) -> None:
    """Segment scans in a plain loop: read BATCH files, predict, threshold at 0.5, write masks.

    Args:
        predict: maps (B, S, S, 3) uint8 to (B, S, S) probability.
    """
    import cv2

    paths = sorted(folder.glob("*/*.tif"))
    for start in range(0, len(paths), BATCH):
        chunk = paths[start : start + BATCH]
        images = np.stack([np.asarray(cv2.imread(str(path))) for path in chunk])
        for path, mask in zip(chunk, predict(images) >= 0.5, strict=True):
            pixels = mask.astype(np.uint8) * 255
            cv2.imwrite(str(out / f"{path.stem}_mask.tif"), pixels, UNCOMPRESSED)


def write_files(folder: Path) -> list[tuple[Path, Path]]:
    """Write the batch as pairs of image and mask files, for a system that reads files to train."""
    import cv2

    images, masks = batch()
    pairs = []
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        pair = (folder / f"{number}.tif", folder / f"{number}_mask.tif")
        cv2.imwrite(str(pair[0]), image)
        cv2.imwrite(str(pair[1]), (mask[..., 0] * 255).astype(np.uint8))
        pairs.append(pair)
    return pairs
