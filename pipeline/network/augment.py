"""Augment training slices, on `keras.ops` alone.

B slices, S x S pixels. Parameters are sampled by numpy, from a generator that the caller
seeds, so that every backend applies the same ones. Slices are changed on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from pipeline.domain.scans import FLAIR, POST, PRE

RIM = 0.08  # width of the rim that is pasted around a tumour, as a share of a slice's side


@dataclass(frozen=True)
class Augmentation:
    """How much training slices are changed. Each change is off at 0.

    flip: share of slices that are mirrored left to right.
    rotate_degrees: largest rotation.
    scale, shift: largest change of size and largest shift, as shares of the side.
    intensity: largest change of the brightness of a sequence, as a share.
    missing: share of slices that lose their post-contrast sequence, half of them the
        pre-contrast one as well, as in scans where they were not taken.
    paste: share of slices that also get the tumour of another slice of their step.
    """

    flip: float
    rotate_degrees: float
    scale: float
    shift: float
    intensity: float
    missing: float = 0.0
    paste: float = 0.0

    @property
    def is_off(self) -> bool:
        return not (self.flip or self.moves or self.intensity or self.missing or self.paste)

    @property
    def moves(self) -> bool:
        """Whether pixels move other than by mirroring."""
        return bool(self.rotate_degrees or self.scale or self.shift)


class Sampled(NamedTuple):
    """Augmentation parameters of the slices of a step; of T steps: (T, B, ...).

    transforms: (B, 8), which place of the input each output pixel comes from, as
        `ops.image.affine_transform` takes it.
    gains: (B, 1, 1, 3), factor of each sequence.
    sources: (B, 3, 3) of 0 and 1, the sequence (row) that each sequence (column) is taken
        from; None if all stay as they are.
    partners: (B,) position in the step of the slice whose tumour is pasted; the position of
        the slice itself for none. None if nothing is pasted in any slice.
    """

    transforms: np.ndarray
    gains: np.ndarray
    sources: np.ndarray | None = None
    partners: np.ndarray | None = None

    def at(self, steps: int | slice) -> "Sampled":
        """Return the parameters of one step, or of a range of steps."""
        selected: list[Any] = [None if values is None else values[steps] for values in self]
        return Sampled(*selected)


def stack(steps: Sequence[Sampled]) -> Sampled:
    """Join the parameters of T steps along a new first axis."""
    stacked: list[Any] = [
        None if values[0] is None else np.stack(values) for values in zip(*steps, strict=True)
    ]
    return Sampled(*stacked)


def sample(
    generator: np.random.Generator, *, slices: int, side: int, settings: Augmentation
) -> Sampled:
    """Sample augmentation parameters for `slices` slices of side x side pixels."""

    def symmetric(limit: float) -> np.ndarray:
        return generator.uniform(-limit, limit, slices)

    angle = np.deg2rad(symmetric(settings.rotate_degrees))
    zoom = 1 + symmetric(settings.scale)
    mirror = np.where(generator.random(slices) < settings.flip, -1.0, 1.0)
    a, b = np.cos(angle) / zoom * mirror, -np.sin(angle) / zoom
    c, d = np.sin(angle) / zoom * mirror, np.cos(angle) / zoom
    middle = (side - 1) / 2
    x = middle - (a + b) * middle + symmetric(settings.shift) * side
    y = middle - (c + d) * middle + symmetric(settings.shift) * side
    zero = np.zeros(slices)
    transforms = np.stack([a, b, x, c, d, y, zero, zero], axis=1).astype(np.float32)
    gains = 1 + generator.uniform(-settings.intensity, settings.intensity, (slices, 1, 1, 3))
    sources = _sources(generator, slices, settings.missing) if settings.missing else None
    partners = _partners(generator, slices, settings.paste) if settings.paste else None
    return Sampled(transforms, gains.astype(np.float32), sources, partners)


def _sources(generator: np.random.Generator, slices: int, missing: float) -> np.ndarray:
    """Sample which sequences are missing; FLAIR takes their place, as in the data set."""
    loses_post = generator.random(slices) < missing
    loses_pre = loses_post & (generator.random(slices) < 0.5)
    sources = np.tile(np.eye(3, dtype=np.float32), (slices, 1, 1))
    for channel, loses in ((PRE, loses_pre), (POST, loses_post)):
        sources[loses, channel, channel] = 0
        sources[loses, FLAIR, channel] = 1
    return sources


def _partners(generator: np.random.Generator, slices: int, paste: float) -> np.ndarray:
    """Sample partners from the whole step; a slice may be its own partner."""
    positions = np.arange(slices)
    partners = generator.integers(0, slices, slices)
    return np.where(generator.random(slices) < paste, partners, positions).astype(np.int32)


def apply(images: Any, masks: Any, sampled: Sampled) -> tuple[Any, Any]:
    """Apply the same augmentation to slices and their masks.

    Args:
        images: (B, S, S, 3) uint8.
        masks: (B, S, S, 1) share of tumour, in [0, 1].
        sampled: parameters of one step.

    Returns:
        Images and masks, of the same shapes and types. Pixels from outside the slice are
        black and no tumour.
    """
    pixels, masks = _transform(images, ops.cast(masks, "float32"), sampled.transforms)
    if sampled.partners is not None:
        pixels, masks = _paste(pixels, masks, sampled.partners)
    if sampled.sources is not None:
        pixels = ops.einsum("bhwc,bcd->bhwd", pixels, sampled.sources)
    pixels = ops.clip(pixels * sampled.gains, 0.0, 255.0)
    return ops.cast(ops.round(pixels), "uint8"), masks


def _paste(images: Any, masks: Any, partners: Any) -> tuple[Any, Any]:
    """Paste the tumour of each slice's partner at its place there, with a rim that fades out.

    The rim is RIM of a side wide.

    Source: after Zhang et al. 2021 (CarveMix), with one rim for all tumours.
    """
    others, tumours = ops.take(images, partners, axis=0), ops.take(masks, partners, axis=0)
    radius = round(RIM * int(masks.shape[1]) / 2)
    near = ops.cast(_local_mean(tumours, radius) > 0, "float32")
    share = _local_mean(near, radius)
    images = images * (1 - share) + others * share
    return images, ops.maximum(masks * (1 - share), tumours)


def _local_mean(images: Any, radius: int) -> Any:
    """Average over squares of 2 * radius + 1 pixels, cut off at the borders of the slice."""
    width = 2 * radius + 1
    rows = ops.average_pool(images, (width, 1), strides=1, padding="same")
    return ops.average_pool(rows, (1, width), strides=1, padding="same")


def _transform(images: Any, masks: Any, transforms: Any) -> tuple[Any, Any]:
    """Transform both, to float32."""
    if keras.backend.backend() == "jax":
        return _interpolate(images, transforms), _interpolate(masks, transforms)
    both = ops.concatenate([ops.cast(images, "float32"), masks * 255.0], axis=-1)
    moved = ops.image.affine_transform(both, transforms, interpolation="bilinear")
    return moved[..., :3], moved[..., 3:] / 255.0


def _interpolate(images: Any, transforms: Any) -> Any:
    """Compute `ops.image.affine_transform` under JAX, with fewer reads and full precision.

    There that function multiplies a matrix for each place, by factors of ten bits on a GPU,
    and reads eight neighbours rather than four.
    """
    batch, side, _, channels = images.shape
    column = ops.arange(side, dtype="float32")
    row = column[:, None]
    a, b, right, c, d, down = (transforms[:, index, None, None] for index in range(6))
    x, y = a * column + b * row + right, c * column + d * row + down
    left, top = ops.floor(x), ops.floor(y)
    pixels, total = ops.reshape(images, (batch, side * side, channels)), 0.0
    for across, share_x in ((left, left + 1 - x), (left + 1, x - left)):
        for along, share_y in ((top, top + 1 - y), (top + 1, y - top)):
            is_inside = (across >= 0) & (across < side) & (along >= 0) & (along < side)
            places = ops.clip(along, 0, side - 1) * side + ops.clip(across, 0, side - 1)
            places = ops.reshape(ops.cast(places, "int32"), (batch, side * side, 1))
            values = ops.cast(ops.take_along_axis(pixels, places, axis=1), "float32")
            share = ops.where(is_inside, share_x * share_y, 0.0)
            total = total + ops.reshape(values, images.shape) * share[..., None]
    return total
