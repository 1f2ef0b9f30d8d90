"""What is timed: one batch shape, drawn at random, the same for every system.

B = 16 slices of 256 x 256 pixels, 3 channels; a mask with 3 % tumour pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BATCH, SIDE = 16, 256
FILTERS = (16, 32, 64, 128, 256)
MISSED_WEIGHT, EXPONENT, LEARNING_RATE = 0.7, 0.75, 0.001


@dataclass(frozen=True)
class System:
    """One way to do the work. train: one step. predict: one batch. parameters: of its network."""

    train: Callable[[], object]
    predict: Callable[[], object]
    parameters: int


def batch() -> tuple[np.ndarray, np.ndarray]:
    """(B, S, S, 3) uint8 slices and (B, S, S, 1) float32 masks, 0 or 1."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    return images, (generator.random((BATCH, SIDE, SIDE, 1)) < 0.03).astype(np.float32)


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
