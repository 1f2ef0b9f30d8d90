"""Images of slices with the outlines of masks, for `gliaflow predict --overlays`.

H x W pixels. Colours are RGB; colour-blind readers can tell them apart.
"""

from pathlib import Path

import cv2
import numpy as np

from pipeline.domain.scans import FLAIR

PREDICTED = (230, 159, 0)  # orange
REFERENCE = (86, 180, 233)  # sky blue


def draw_overlay(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
    """Draw the outline of the prediction, and of the truth if given, on FLAIR in grey.

    Args:
        image: (H, W, 3) uint8.
        predicted: (H, W) bool.
        truth: (H, W) bool, or None.

    Returns:
        (2H, 2W, 3) uint8, RGB: twice the size, so that outlines do not hide small lesions.
    """
    grey = cv2.resize(image[..., FLAIR], None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    overlay = np.repeat(grey[..., None], 3, axis=2)
    for mask, colour in ((truth, REFERENCE), (predicted, PREDICTED)):
        if mask is not None:
            large = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
            edges, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(overlay, edges, -1, colour, 1)
    return overlay


def save_png(path: Path, image: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 RGB image as PNG."""
    encoded, buffer = cv2.imencode(".png", image[..., ::-1])
    assert encoded
    path.write_bytes(buffer.tobytes())
