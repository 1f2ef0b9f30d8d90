"""Pictures of a slice with masks drawn into it.

H x W pixels. Colours are RGB and can be told apart by colour-blind readers.
"""

from pathlib import Path

import cv2
import numpy as np

from pipeline.domain.scans import FLAIR

PREDICTED = (230, 159, 0)  # orange
TRUTH = (86, 180, 233)  # sky blue


def draw(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
    """FLAIR in grey with the outline of the prediction, and of the truth where there is one.

    Args:
        image: (H, W, 3) uint8; predicted, truth: (H, W) bool.

    Returns:
        (2H, 2W, 3) uint8, RGB: twice the size, so that outlines do not hide small lesions.
    """
    grey = cv2.resize(image[..., FLAIR], None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    picture = np.repeat(grey[..., None], 3, axis=2)
    for mask, colour in ((truth, TRUTH), (predicted, PREDICTED)):
        if mask is not None:
            large = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
            edges, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, edges, -1, colour, 1)
    return picture


def save(path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture as PNG."""
    done, buffer = cv2.imencode(".png", picture[..., ::-1])
    assert done
    path.write_bytes(buffer.tobytes())
