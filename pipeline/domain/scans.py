"""What a slice is, what it is called, and the facts of it that validation reads.

H x W pixels, 3 channels: pre-contrast, FLAIR, post-contrast. Does not know files: it
takes names and arrays.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

CHANNELS = ("pre", "flair", "post")
PRE, FLAIR, POST = range(3)

# The one rule of validation that keeps slices out and not their patient.
CONFLICT = "conflict"

_NAME = re.compile(r"(?P<patient>.+)_(?P<slice>\d+)(?P<mask>_mask)?\.tiff?", re.IGNORECASE)


@dataclass(frozen=True)
class SliceName:
    """What the name of a file says: `TCGA_DU_5849_19950405_12_mask.tif`."""

    patient: str
    slice: int
    is_mask: bool


def parse_name(name: str) -> SliceName | None:
    """Read a file's name (no folder); None where it does not have Kaggle's form."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return SliceName(match["patient"], int(match["slice"]), match["mask"] is not None)


def file_name(patient: str, number: int, *, is_mask: bool) -> str:
    return f"{patient}_{number}{'_mask' if is_mask else ''}.tif"


def site_of(patient: str) -> str:
    """The hospital: the second part of the patient's name, `?` where there is none."""
    parts = patient.split("_")
    return parts[1] if len(parts) > 1 else "?"


def image_facts(image: np.ndarray) -> dict[str, object]:
    """Facts of one image as it was decoded, for its row of the manifest.

    Args:
        image: (H, W) or (H, W, C), any type.

    Returns:
        height, width, channels, dtype; and for three channels of uint8: the mean of each
        (0 to 255), `blank` (channels that are all zero, by name, blank between) and
        `missing` (pre or post where it is a copy of a FLAIR that is not blank: so the data
        set fills sequences that were not taken).
    """
    stack = image[..., None] if image.ndim == 2 else image
    height, width, channels = stack.shape
    facts: dict[str, object] = {
        "height": height,
        "width": width,
        "channels": channels,
        "dtype": str(image.dtype),
    }
    if channels != len(CHANNELS) or image.dtype != np.uint8:
        return facts
    planes = [np.ascontiguousarray(stack[..., c]) for c in range(channels)]
    flair = planes[FLAIR]
    blank = [not plane.any() for plane in planes]
    for name, plane in zip(CHANNELS, planes, strict=True):
        facts[f"{name}_mean"] = round(float(plane.mean()), 4)
    facts["blank"] = " ".join(n for n, is_blank in zip(CHANNELS, blank, strict=True) if is_blank)
    facts["missing"] = " ".join(
        name
        for name, plane in zip(CHANNELS, planes, strict=True)
        if name != "flair" and not blank[FLAIR] and np.array_equal(plane, flair)
    )
    return facts


def mask_facts(mask: np.ndarray) -> dict[str, object]:
    """Facts of one mask: its size, type, values (at most six, blank between) and tumour pixels."""
    values = np.unique(mask)
    shown = " ".join(str(value) for value in values[:6]) + (" ..." if len(values) > 6 else "")
    return {
        "mask_height": mask.shape[0],
        "mask_width": mask.shape[1],
        "mask_channels": 1 if mask.ndim == 2 else mask.shape[2],
        "mask_dtype": str(mask.dtype),
        "mask_values": shown,
        "tumour_pixels": int(np.count_nonzero(mask)),
    }


def doubled(numbers: Iterable[int]) -> list[int]:
    """The numbers that appear more than once, sorted."""
    listed = sorted(numbers)
    return sorted({a for a, b in pairwise(listed) if a == b})


def numbering_fault(numbers: Iterable[int]) -> str:
    """What is wrong with a scan's slice numbers, empty where nothing is.

    They must run without gaps from 1, or from 0. Doubled numbers are told first.
    """
    listed = sorted(numbers)
    if doubled(listed):
        return f"slice {_few(doubled(listed))} twice"
    start = 0 if listed and listed[0] == 0 else 1
    gaps = sorted(set(range(start, listed[-1] + 1)) - set(listed)) if listed else []
    return f"slice {_few(gaps)} not there" if gaps else ""


def is_flat(image: np.ndarray) -> bool:
    """Whether all pixels are one value: such images look alike and tell nobody apart."""
    return bool((image == image.flat[0]).all())


def missing_sequences(per_slice: Iterable[str]) -> str:
    """The sequences that a whole scan lacks, from the `missing` facts of its slices.

    A sequence counts as missing where it copies FLAIR in more than half of the slices:
    single black slices say nothing.
    """
    found = [set(text.split()) for text in per_slice]
    names = [
        name
        for name in CHANNELS
        if name != "flair" and sum(name in one for one in found) * 2 > len(found)
    ]
    return " ".join(names)


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")
