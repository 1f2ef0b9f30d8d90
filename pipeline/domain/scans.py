"""Names of slices, and the facts of images, masks and numbering that validation checks.

H x W pixels, 3 channels: pre-contrast, FLAIR, post-contrast. Takes names and arrays; does not
know files.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

CHANNELS = ("pre", "flair", "post")
PRE, FLAIR, POST = range(3)

# The only validation rule that puts slices into quarantine rather than their patient.
CONFLICT = "conflict"

# Tumour covers less of a slice. A mask that covers more is taken for an inverted one.
MAX_TUMOUR_SHARE = 0.5

# File systems allow 255 bytes; a slice's number, the suffix and the name of a temporary file are
# added to it.
MAX_NAME_BYTES = 200
# Unicode's categories of control characters, line separators and paragraph separators.
_BREAKING = {"Cc", "Zl", "Zp"}

# A slice number has at most five digits: no scanner takes more slices, and a date read as a
# number would mean millions of missing ones.
_NAME = re.compile(r"(?P<patient>.+)_(?P<slice>\d{1,5})(?P<mask>_mask)?\.tiff?", re.IGNORECASE)


@dataclass(frozen=True)
class SliceName:
    """The parts of a file name such as `TCGA_DU_5849_19950405_12_mask.tif`."""

    patient: str
    slice: int
    is_mask: bool


def parse_name(name: str) -> SliceName | None:
    """Parse a file name (without folder); None if it does not follow Kaggle's naming.

    A slice number of more than five digits does not.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return SliceName(match["patient"], int(match["slice"]), match["mask"] is not None)


def file_name(patient: str, number: int, *, is_mask: bool) -> str:
    """Return the name of the file of a slice or its mask, as `parse_name` reads it."""
    return f"{patient}_{number}{'_mask' if is_mask else ''}.tif"


def name_fault(name: str) -> str:
    """Return why the name of a file or folder cannot be used; empty if it can.

    Args:
        name: as Python reads it from a file system: bytes that are not UTF-8 are surrogates.
    """
    fault = print_fault(name)
    if fault or len(name.encode()) <= MAX_NAME_BYTES:
        return fault
    return f"its name has {len(name.encode())} bytes, allowed are {MAX_NAME_BYTES}"


def print_fault(name: str) -> str:
    """Return why a name cannot be printed on one line; empty if it can. See `name_fault`."""
    if any(unicodedata.category(character) == "Cs" for character in name):
        return "its name is not valid UTF-8"
    if any(unicodedata.category(character) in _BREAKING for character in name):
        return "its name holds control characters"
    return ""


def site_of(patient: str) -> str:
    """Return the hospital: the second part of the patient's name, `?` if there is none."""
    parts = patient.split("_")
    return parts[1] if len(parts) > 1 else "?"


def image_facts(image: np.ndarray) -> dict[str, object]:
    """Return the facts of a decoded image for its row of the manifest.

    Args:
        image: (H, W) or (H, W, C), any type.

    Returns:
        height, width, channels and dtype. For three channels of uint8 also the mean of each
        channel (0 to 255), `blank` and `missing`: names of channels, separated by spaces.
        `blank` lists channels that are all zero. `missing` lists pre or post if it is a copy
        of a FLAIR that is not blank: so the data set fills sequences that were not acquired.
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
    facts["blank"] = " ".join(
        name for name, is_blank in zip(CHANNELS, blank, strict=True) if is_blank
    )
    facts["missing"] = " ".join(
        name
        for name, plane in zip(CHANNELS, planes, strict=True)
        if name != "flair" and not blank[FLAIR] and np.array_equal(plane, flair)
    )
    return facts


def mask_facts(mask: np.ndarray) -> dict[str, object]:
    """Return the facts of a decoded mask for its row of the manifest.

    Args:
        mask: (H, W) or (H, W, C), any type.

    Returns:
        Size, type, number of tumour pixels (not zero), and the values: the six lowest,
        separated by spaces, followed by `...` if there are more.
    """
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


def tumour_share(tumour_pixels: int, *, height: int, width: int) -> float:
    """Return the share of a slice that its mask marks as tumour, in [0, 1]; empty slice: 0."""
    return tumour_pixels / (height * width) if height * width else 0.0


def covers_too_much(tumour_pixels: int, *, height: int, width: int) -> bool:
    """Return whether a mask marks more of a slice than tumour does: more than half of it."""
    return tumour_share(tumour_pixels, height=height, width=width) > MAX_TUMOUR_SHARE


def doubled(numbers: Iterable[int]) -> list[int]:
    """Return the numbers that appear more than once, sorted."""
    return sorted({a for a, b in pairwise(sorted(numbers)) if a == b})


def numbering_fault(numbers: Iterable[int]) -> str:
    """Describe what is wrong with the slice numbers of a scan; empty if nothing is.

    The numbers must run without gaps from 1, or from 0. Duplicates are reported before gaps.
    """
    ordered = sorted(numbers)
    duplicates = doubled(ordered)
    if duplicates:
        return f"slice {_first_five(duplicates)} twice"
    start = 0 if ordered and ordered[0] == 0 else 1
    gaps = sorted(set(range(start, ordered[-1] + 1)) - set(ordered)) if ordered else []
    return f"slice {_first_five(gaps)} not there" if gaps else ""


def is_flat(image: np.ndarray) -> bool:
    """Return whether all values are equal: such images are alike and identify no patient."""
    return bool((image == image.flat[0]).all())


def missing_sequences(per_slice: Iterable[str]) -> str:
    """Return the sequences that a scan lacks, from the `missing` facts of its slices.

    A sequence counts as missing if it copies FLAIR in more than half of the slices. It need not
    in all of them, since no sequence is marked as missing in a black slice.
    """
    slices = [set(missing.split()) for missing in per_slice]
    names = [
        name
        for name in CHANNELS
        if name != "flair" and sum(name in missing for missing in slices) * 2 > len(slices)
    ]
    return " ".join(names)


def _first_five(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")
