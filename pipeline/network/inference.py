"""Predict with a Keras model, a batch of slices at a time."""

import keras
import numpy as np

BATCH = 16  # slices at once; one shape is compiled


def probabilities(model: keras.Model, images: np.ndarray, *, batch: int) -> np.ndarray:
    """Return the probability of tumour for every pixel.

    Args:
        images: (N, H, W, 3) uint8 of the size that the model takes; may be memory-mapped.
        batch: slices at once. The last batch is padded, so that only one shape is compiled.

    Returns:
        (N, H, W) float32 in [0, 1].
    """
    predicted = np.empty(images.shape[:3], np.float32)
    for start in range(0, len(images), batch):
        part = np.asarray(images[start : start + batch])
        padding = np.zeros((batch - len(part), *part.shape[1:]), np.uint8)
        output = model.predict_on_batch(np.concatenate([part, padding]))
        predicted[start : start + len(part)] = output[: len(part), ..., 0]
    return predicted
