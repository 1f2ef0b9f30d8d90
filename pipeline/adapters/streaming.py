"""Slices that stay on disk and are read as training asks for them, one step ahead.

For sets that memory does not hold. N slices, S x S pixels at the network's own size.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.adapters import arrays
from pipeline.domain import intensity
from pipeline.network.recipe import Part


class Mapped:
    """A `recipe.Source` over the arrays of `data/scans`.

    Args:
        folder: of the scans.
        rows: patient, position and tumour_pixels of each slice, patients in order of name.
        factor: by how much slices are made smaller.
        by_scan: bring each scan to one scale of brightness, see `domain.intensity`.
    """

    def __init__(self, folder: Path, rows: pd.DataFrame, *, factor: int, by_scan: bool = False):
        self._folder, self._factor, self._by_scan = folder, factor, by_scan
        self._scales: dict[str, intensity.Scale] = {}
        names, self.patients = np.unique(rows.patient.to_numpy(dtype=str), return_inverse=True)
        self._names = [str(name) for name in names]
        self._positions = rows.position.to_numpy()
        self.has_tumour = rows.tumour_pixels.to_numpy() > 0

    def parts(self, chosen: np.ndarray) -> Iterator[Part]:
        """A part a step; while one is worked on, the next is read."""
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, chosen[0])
            for following in [*chosen[1:], None]:
                part = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._read, following)
                yield part

    def _read(self, chosen: np.ndarray) -> Part:
        """The slices of one step. Maps are opened and closed again: none of them stays in memory."""
        found = [self._slice(one) for one in chosen]
        images, masks = (np.concatenate(kind) for kind in zip(*found, strict=True))
        return Part(images, masks, np.arange(len(chosen))[None])

    def _slice(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        name = self._names[self.patients[number]]
        scan = arrays.open_scan(self._folder, name)
        place = self._positions[number]
        own = slice(place, place + 1)
        shown = scan.images[own]
        if self._by_scan:
            if name not in self._scales:
                self._scales[name] = intensity.of_scan(scan.images)
            shown = intensity.apply(shown, self._scales[name])
        return (
            arrays.shrink_images(shown, self._factor),
            arrays.shrink_masks(scan.masks[own], self._factor),
        )
