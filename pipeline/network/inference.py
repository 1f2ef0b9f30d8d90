"""A trained network on slices that are on disk, a batch at a time."""

import keras
import numpy as np

BATCH = 16  # slices at once; one shape is compiled


def probabilities(model: keras.Model, images: np.ndarray, *, batch: int) -> np.ndarray:
    """Probability of tumour for every pixel.

    Args:
        images: (N, H, W, 3) uint8 of the size the model takes; may be memory-mapped.
        batch: slices at once; the last batch is filled up so that one shape is compiled.

    Returns:
        (N, H, W) float32 in [0, 1].
    """
    found = np.empty(images.shape[:3], np.float32)
    for start in range(0, len(images), batch):
        part = np.asarray(images[start : start + batch])
        filled = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
        found[start : start + len(part)] = model.predict_on_batch(filled)[: len(part), ..., 0]
    return found
