"""Makes tiny scans by hand, as files, for tests of what reads them."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import params
from pipeline.adapters import files

REPOSITORY = Path(__file__).parents[1]


def image(patient: str, number: int, *, size_px: int = 32) -> np.ndarray:
    """(H, W, 3) uint8 noise, another one for every patient and slice."""
    dice = np.random.default_rng([number, *patient.encode()])
    return dice.integers(1, 255, (size_px, size_px, 3), dtype=np.uint8)


def mask(tumour_pixels: int, *, size_px: int = 32) -> np.ndarray:
    """(H, W) uint8: that many pixels of 255 from the top left on, 0 elsewhere."""
    flat = np.zeros(size_px * size_px, np.uint8)
    flat[:tumour_pixels] = 255
    return flat.reshape(size_px, size_px)


def write_patient(
    folder: Path, *, numbers: Iterable[int] = (1, 2, 3), tumour_pixels: int = 5, size_px: int = 32
) -> Path:
    """Sound slices of the patient whom the folder is named after; tumour in all but the first."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, number in enumerate(numbers):
        name = f"{folder.name}_{number}"
        write_tif(folder / f"{name}.tif", image(folder.name, number, size_px=size_px))
        write_tif(folder / f"{name}_mask.tif", mask(tumour_pixels if i else 0, size_px=size_px))
    return folder


def write_tif(path: Path, pixels: np.ndarray) -> None:
    path.write_bytes(files.encode_tif(pixels))


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder: path to bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def parameters(**sections: dict[str, Any]) -> params.Params:
    """The repository's parameters for scans of 32 x 32 pixels, with changes by section."""
    raw = params.load(REPOSITORY / "params.yaml").model_dump(mode="json", by_alias=True)
    sections = {"ingest": {"workers": 1}} | sections
    sections["validate"] = {"height_px": 32, "width_px": 32} | sections.get("validate", {})
    return params.parse({name: raw[name] | sections.get(name, {}) for name in raw})


@contextmanager
def another_user() -> Iterator[None]:
    """Be a user whom rights bind, where root runs the tests."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
