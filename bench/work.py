"""What is timed: one batch shape, drawn at random, the same for every system.

B = 16 slices of 256 x 256 pixels, 3 channels; a mask with 3 % tumour pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BATCH, SIDE = 16, 256
PATIENTS = 4
UNCOMPRESSED = (259, 1)  # TIFFTAG_COMPRESSION: none, as the scans are
SLICES = {"train": BATCH, "predict": BATCH, "segment": PATIENTS * BATCH}  # of one call
FILTERS = (16, 32, 64, 128, 256)
MISSED_WEIGHT, EXPONENT, LEARNING_RATE = 0.7, 0.75, 0.001


@dataclass(frozen=True)
class System:
    """One way to do the work.

    train: one step. predict: one batch. segment: SEGMENTED scans on disk to masks on disk.
    parameters: of its network.
    """

    train: Callable[[], object]
    predict: Callable[[], object]
    segment: Callable[[Path, Path], object]
    parameters: int


def batch() -> tuple[np.ndarray, np.ndarray]:
    """(B, S, S, 3) uint8 slices and (B, S, S, 1) float32 masks, 0 or 1."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    return images, (generator.random((BATCH, SIDE, SIDE, 1)) < 0.03).astype(np.float32)


def write_scans(folder: Path) -> None:
    """PATIENTS scans of BATCH slices each, as users have them: `<patient>/<patient>_<n>.tif`."""
    import cv2

    images, _ = batch()
    for number in range(PATIENTS):
        patient = f"BENCH_AX_{number:04d}"
        (folder / patient).mkdir(parents=True)
        for place, image in enumerate(images, start=1):
            cv2.imwrite(str(folder / patient / f"{patient}_{place}.tif"), image, UNCOMPRESSED)


def by_files(folder: Path, out: Path, predict: Callable[[np.ndarray], np.ndarray]) -> None:
    """The plain loop: read a batch of files, predict, cut at 0.5, write a mask each.

    Args:
        predict: (B, S, S, 3) uint8 to (B, S, S) probability.
    """
    import cv2

    paths = sorted(folder.glob("*/*.tif"))
    for start in range(0, len(paths), BATCH):
        part = paths[start : start + BATCH]
        found = predict(np.stack([cv2.imread(str(path)) for path in part])) >= 0.5
        for path, mask in zip(part, found, strict=True):
            cv2.imwrite(
                str(out / f"{path.stem}_mask.tif"), mask.astype(np.uint8) * 255, UNCOMPRESSED
            )


def write_files(folder: Path) -> list[tuple[Path, Path]]:
    """The batch as pairs of image and mask files, for systems that read files."""
    import cv2

    images, masks = batch()
    pairs = []
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        pair = (folder / f"{number}.tif", folder / f"{number}_mask.tif")
        cv2.imwrite(str(pair[0]), image)
        cv2.imwrite(str(pair[1]), (mask[..., 0] * 255).astype(np.uint8))
        pairs.append(pair)
    return pairs
