"""Open the slices of a split for training: in memory if they fit, else streamed from disk.

N slices, S x S pixels at the network's image size, T steps of B slices.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.adapters.scans import arrays
from pipeline.adapters.storage import stage_tables
from pipeline.domain import intensity
from pipeline.network import backend
from pipeline.network.training_data import SlicePart, SlicesInMemory, SliceSource

BYTES_PER_PIXEL = 4  # three channels and the mask


def gib_in_memory(slices: int, *, side: int) -> float:
    """Return the memory that slices of side x side pixels take, masks included, in GiB."""
    return slices * side * side * BYTES_PER_PIXEL / 2**30


def open_slices(
    folder: Path, rows: pd.DataFrame, *, factor: int, by_scan: bool, in_memory: bool
) -> SliceSource:
    """Open slices for training.

    Args:
        folder: holds the scans' arrays.
        rows: patient, position and tumour_pixels of each slice, patients in order of name.
        factor: downsampling factor.
        by_scan: normalise the intensity of each scan, see `domain.intensity`.
        in_memory: load the slices now, onto the device if training is faster that way. If
            False, stream them from disk.
    """
    if not in_memory:
        return StreamedSlices(folder, rows, factor=factor, by_scan=by_scan)
    positions = stage_tables.slice_positions(rows)
    slices = SlicesInMemory(
        *arrays.load_slices(folder, positions, factor=factor, by_scan=by_scan),
        has_tumour=rows.tumour_pixels.to_numpy() > 0,
    )
    return slices.on_device() if backend.keeps_slices_on_device() else slices


class StreamedSlices:
    """A `SliceSource` that reads slices from disk, one step ahead of training.

    Args:
        folder: holds the scans' arrays.
        rows: patient, position and tumour_pixels of each slice, patients in order of name.
        factor: downsampling factor.
        by_scan: normalise the intensity of each scan, see `domain.intensity`.
    """

    def __init__(self, folder: Path, rows: pd.DataFrame, *, factor: int, by_scan: bool = False):
        self._folder, self._factor, self._by_scan = folder, factor, by_scan
        self._scales: dict[str, intensity.Scale] = {}
        names, self.patients = np.unique(rows.patient.to_numpy(dtype=str), return_inverse=True)
        self._names = [str(name) for name in names]
        self._positions = rows.position.to_numpy()
        self.has_tumour = rows.tumour_pixels.to_numpy() > 0

    def parts(self, chosen: np.ndarray) -> Iterator[SlicePart]:
        """Yield one part per step; read the next one meanwhile.

        Args:
            chosen: (T, B) positions among the N slices.

        Raises:
            GliaflowError: a scan's arrays are missing or corrupt.
        """
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, chosen[0])
            for following in [*chosen[1:], None]:
                part = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._read, following)
                yield part

    def _read(self, chosen: np.ndarray) -> SlicePart:
        """Read the slices of one step; (B,) positions. Memory maps do not outlive the call."""
        slices = [self._read_slice(number) for number in chosen]
        images, masks = (np.concatenate(kind) for kind in zip(*slices, strict=True))
        return SlicePart(images, masks, np.arange(len(chosen))[None])

    def _read_slice(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Read image (1, S, S, 3) and mask (1, S, S) of one of the N slices, as uint8."""
        patient = self._names[self.patients[number]]
        scan = arrays.open_scan(self._folder, patient)
        start = self._positions[number]
        image, mask = scan.images[start : start + 1], scan.masks[start : start + 1]
        if self._by_scan:
            if patient not in self._scales:
                self._scales[patient] = intensity.estimate_scale(scan.images)
            image = intensity.apply_scale(image, self._scales[patient])
        return arrays.shrink_images(image, self._factor), arrays.shrink_masks(mask, self._factor)
