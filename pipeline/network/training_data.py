"""Slices to train on: in memory, on the device, or read from disk while training.

N slices, S x S pixels, T steps of B slices.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.network import steps


class SlicePart(NamedTuple):
    """Arrays that hold M slices, and the next t steps that are taken from them.

    images: (M, S, S, 3) uint8. masks: (M, S, S) uint8, share of tumour times 255.
    chosen: (t, B) positions in these arrays.
    """

    images: Any
    masks: Any
    chosen: np.ndarray


class SliceSource(Protocol):
    """Slices for training or validation, wherever they are stored."""

    @property
    def patients(self) -> np.ndarray:
        """(N,) number of the patient that a slice belongs to."""

    @property
    def has_tumour(self) -> np.ndarray:
        """(N,) bool."""

    def parts(self, chosen: np.ndarray) -> Iterator[SlicePart]:
        """Yield the slices of some steps, part by part and in order.

        Args:
            chosen: (T, B) positions among the N slices.
        """


@dataclass(frozen=True)
class SlicesInMemory:
    """Slices in the memory of the host or, after `on_device`, of the device.

    images, masks: as in `SlicePart`, of all N slices. patients, has_tumour: as in
    `SliceSource`.
    """

    images: Any
    masks: Any
    patients: np.ndarray
    has_tumour: np.ndarray
    is_on_device: bool = False

    def on_device(self) -> "SlicesInMemory":
        """Return a copy whose images and masks are on the device."""
        images, masks = steps.place_on_device(self.images), steps.place_on_device(self.masks)
        return replace(self, images=images, masks=masks, is_on_device=True)

    def parts(self, chosen: np.ndarray) -> Iterator[SlicePart]:
        """Yield all steps at once on the device; else the slices of one step after another."""
        if self.is_on_device:
            yield SlicePart(self.images, self.masks, chosen)
            return
        for positions in chosen:
            in_part = np.arange(len(positions))[None]
            yield SlicePart(self.images[positions], self.masks[positions], in_part)


def epoch_order(
    source: SliceSource, generator: np.random.Generator, *, balanced: bool
) -> np.ndarray:
    """Return the positions of an epoch's slices, shuffled.

    Args:
        balanced: take all slices with tumour and a random sample of as many without; all of
            them if there are fewer. Otherwise take all slices.
    """
    if not balanced:
        return generator.permutation(len(source.patients))
    with_tumour, without = np.flatnonzero(source.has_tumour), np.flatnonzero(~source.has_tumour)
    sample = generator.choice(without, min(len(with_tumour), len(without)), replace=False)
    return generator.permutation(np.concatenate([with_tumour, sample]))
