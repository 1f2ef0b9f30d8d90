"""Encode slices with reference and predicted masks as data URIs for the report."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.domain.metrics import dice, overlap
from pipeline.domain.scans import FLAIR

# Blue, yellow and orange-red: told apart with every kind of colour blindness.
TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE = "#56b4e9", "#f0e442", "#d55e00"


@dataclass(frozen=True)
class SliceFigure:
    """A slice to show.

    number: as in its file name. image: (H, W, 3) uint8, pre, FLAIR, post, at the brightness to
    show. truth, predicted: (H, W) bool, True is tumour.
    """

    number: int
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


def render_slice(figure: SliceFigure) -> dict[str, Any]:
    """Return the values that the page shows of a slice.

    Masks are PNG layers, exact; the FLAIR image below them is lossy WebP.
    """
    counts = overlap(figure.truth, figure.predicted)
    return {
        "number": figure.number,
        "counts": counts,
        "dice": dice(counts),
        "flair": _data_uri(figure.image[..., FLAIR], "webp"),
        "truth": _data_uri(_spotlight(figure.truth), "png"),
        "predicted": _data_uri(_spotlight(figure.predicted), "png"),
        "confusion": _data_uri(_confusion_layer(figure.truth, figure.predicted), "png"),
    }


def render_masks(image: np.ndarray, **masks: np.ndarray) -> dict[str, str]:
    """Return a slice and masks of it as data URIs, by name; the slice is `flair`.

    Args:
        image: (H, W, 3) uint8, pre, FLAIR, post, at the brightness to show.
        masks: (H, W) bool.
    """
    layers = {name: _data_uri(_spotlight(mask), "png") for name, mask in masks.items()}
    return {"flair": _data_uri(image[..., FLAIR], "webp"), **layers}


def _spotlight(mask: np.ndarray) -> np.ndarray:
    """Return a layer (H, W, 4) that darkens all but the mask, with a white outline around it."""
    import cv2

    grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    layer = np.zeros((*mask.shape, 4), np.uint8)
    layer[~mask] = (0, 0, 0, 120)
    layer[grown & ~mask] = (255, 255, 255, 255)
    return layer


def _confusion_layer(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return a BGRA layer (H, W, 4) that colours pixels where either mask is tumour."""
    # In the order of truth + 2 * predicted.
    styles = ("#000000", 0), (FALSE_NEGATIVE, 205), (FALSE_POSITIVE, 205), (TRUE_POSITIVE, 130)
    table = [(*bytes.fromhex(colour[1:])[::-1], opacity) for colour, opacity in styles]
    layer: np.ndarray = np.array(table, np.uint8)[
        truth.astype(np.uint8) + 2 * predicted.astype(np.uint8)
    ]
    return layer


def _data_uri(pixels: np.ndarray, file_type: str) -> str:
    """Encode an image as a data URI.

    Args:
        pixels: (H, W) grey or (H, W, 4) BGRA, uint8.
        file_type: `webp` or `png`.
    """
    import cv2

    is_webp = file_type == "webp"
    options = [cv2.IMWRITE_WEBP_QUALITY, 85] if is_webp else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    encoded, buffer = cv2.imencode(f".{file_type}", pixels, options)
    assert encoded
    text = base64.b64encode(buffer.tobytes()).decode("ascii")
    return f"data:image/{file_type};base64,{text}"
