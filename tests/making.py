"""Tiny scans as files, and parameters to go with them, for tests."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import params
from pipeline.adapters.scans import image_files
from pipeline.domain.gate import Policy

POLICY = Policy(
    min_tversky=0.6,
    min_tversky_low=0.0,
    min_patients=5,
    margin=0.05,
    group_margin=0.1,
    min_group=5,
    test_budget=20,
    approval="inconclusive",
)
REPOSITORY = Path(__file__).parents[1]


def image(patient: str, number: int, *, size_px: int = 32) -> np.ndarray:
    """Return (H, W, 3) uint8 noise, different for every patient and slice."""
    rng = np.random.default_rng([number, *patient.encode()])
    return rng.integers(1, 255, (size_px, size_px, 3), dtype=np.uint8)


def mask(tumour_pixels: int, *, size_px: int = 32) -> np.ndarray:
    """Return an (H, W) uint8 mask: so many pixels of 255, row by row from the top, the rest 0."""
    flat = np.zeros(size_px * size_px, np.uint8)
    flat[:tumour_pixels] = 255
    return flat.reshape(size_px, size_px)


def write_patient(
    folder: Path, *, numbers: Iterable[int] = (1, 2, 3), tumour_pixels: int = 5, size_px: int = 32
) -> Path:
    """Write valid slices of the patient that the folder is named after; the first is tumour-free."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, number in enumerate(numbers):
        name = f"{folder.name}_{number}"
        write_tif(folder / f"{name}.tif", image(folder.name, number, size_px=size_px))
        write_tif(folder / f"{name}_mask.tif", mask(tumour_pixels if i else 0, size_px=size_px))
    return folder


def write_tif(path: Path, pixels: np.ndarray) -> None:
    """Write an image or a mask as a TIFF file."""
    path.write_bytes(image_files.encode_tif(pixels))


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder: relative path to bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def parameters(**sections: dict[str, Any]) -> params.Params:
    """Return the repository's parameters for scans of 32 x 32 pixels, changed by section."""
    raw = params.load(REPOSITORY / "params.yaml").model_dump(mode="json", by_alias=True)
    sections = {"ingest": {"workers": 1}} | sections
    sections["validate"] = {"height_px": 32, "width_px": 32} | sections.get("validate", {})
    return params.parse({name: raw[name] | sections.get(name, {}) for name in raw})


@contextmanager
def another_user() -> Iterator[None]:
    """Run as an unprivileged user if root runs the tests, so that file permissions apply."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
