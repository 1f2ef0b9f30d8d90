"""Training slices shown a little differently each time, on `keras.ops` alone.

B slices, S x S pixels. What is drawn is drawn by numpy, from a generator that the caller
seeds, so that every backend sees the same slices; what is computed runs on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from pipeline.domain.scans import FLAIR, POST, PRE

RIM = 0.08  # of a slice's side: how far what surrounds a pasted tumour comes along


@dataclass(frozen=True)
class Settings:
    """flip: share of slices mirrored left to right. rotate_degrees, scale, shift: most that a
    slice is turned, stretched and moved (shares of its side). intensity: most that each
    sequence is made brighter or darker, as a share. missing: share of slices that lose their
    post-contrast sequence, or with it the pre-contrast one, as a scan where they were not
    taken. paste: share of slices that get the tumour of another slice of their step as well.
    0 switches a thing off.
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
        return bool(self.rotate_degrees or self.scale or self.shift)


class Drawn(NamedTuple):
    """transforms: (B, 8), where each output pixel comes from. gains: (B, 1, 1, 3).
    sources: (B, 3, 3) shares of 0 or 1, the sequence (row) that each one (column) is taken
    from; None where each stays what it is. partners: (B,) place in the step of the slice whose
    tumour is pasted, its own where none is; None where none is anywhere.

    Of several steps: (T, B, ...).
    """

    transforms: np.ndarray
    gains: np.ndarray
    sources: np.ndarray | None = None
    partners: np.ndarray | None = None

    def of(self, steps: int | slice) -> "Drawn":
        """What was drawn for one step, or for some of them."""
        return Drawn(*(None if part is None else part[steps] for part in self))


def stacked(steps: Sequence[Drawn]) -> Drawn:
    return Drawn(
        *(None if part[0] is None else np.stack(part) for part in zip(*steps, strict=True))
    )


def draw(generator: np.random.Generator, *, slices: int, side: int, settings: Settings) -> Drawn:
    """Draw how `slices` slices of side x side pixels are changed."""

    def spread(most: float) -> np.ndarray:
        return generator.uniform(-most, most, slices)

    angle = np.deg2rad(spread(settings.rotate_degrees))
    zoom = 1 + spread(settings.scale)
    mirror = np.where(generator.random(slices) < settings.flip, -1.0, 1.0)
    a, b = np.cos(angle) / zoom * mirror, -np.sin(angle) / zoom
    c, d = np.sin(angle) / zoom * mirror, np.cos(angle) / zoom
    middle = (side - 1) / 2
    x = middle - (a + b) * middle + spread(settings.shift) * side
    y = middle - (c + d) * middle + spread(settings.shift) * side
    zero = np.zeros(slices)
    transforms = np.stack([a, b, x, c, d, y, zero, zero], axis=1).astype(np.float32)
    gains = 1 + generator.uniform(-settings.intensity, settings.intensity, (slices, 1, 1, 3))
    sources = _sources(generator, slices, settings.missing) if settings.missing else None
    partners = _partners(generator, slices, settings.paste) if settings.paste else None
    return Drawn(transforms, gains.astype(np.float32), sources, partners)


def _sources(generator: np.random.Generator, slices: int, missing: float) -> np.ndarray:
    """Where each sequence is taken from: FLAIR stands in for what is missing, as in the set."""
    loses_post = generator.random(slices) < missing
    loses_pre = loses_post & (generator.random(slices) < 0.5)
    sources = np.tile(np.eye(3, dtype=np.float32), (slices, 1, 1))
    for channel, loses in ((PRE, loses_pre), (POST, loses_post)):
        sources[loses, channel, channel] = 0
        sources[loses, FLAIR, channel] = 1
    return sources


def _partners(generator: np.random.Generator, slices: int, paste: float) -> np.ndarray:
    """The slice that each one takes a tumour from: any of the step, itself too, or itself alone."""
    own, other = np.arange(slices), generator.integers(0, slices, slices)
    return np.where(generator.random(slices) < paste, other, own).astype(np.int32)


def apply(images, masks, drawn: Drawn):
    """Change slices and their masks alike.

    Args:
        images: (B, S, S, 3) uint8; masks: (B, S, S, 1) share of tumour, in [0, 1].

    Returns:
        Both, of the same shapes and types. What moves in from outside is black and no tumour.
    """
    shown, masks = _moved(images, ops.cast(masks, "float32"), drawn.transforms)
    if drawn.partners is not None:
        shown, masks = _pasted(shown, masks, drawn.partners)
    if drawn.sources is not None:
        shown = ops.einsum("bhwc,bcd->bhwd", shown, drawn.sources)
    changed = ops.clip(shown * drawn.gains, 0.0, 255.0)
    return ops.cast(ops.round(changed), "uint8"), masks


def _pasted(images, masks, partners):
    """Slices with the tumour of their partner, where it lies in that; what surrounds it comes along
    and fades over RIM of a side.

    Source: after Zhang et al. 2021 (CarveMix), with one rim for all tumours.
    """
    others, tumours = ops.take(images, partners, axis=0), ops.take(masks, partners, axis=0)
    reach = round(RIM * int(masks.shape[1]) / 2)
    near = ops.cast(_mean_around(tumours, reach) > 0, "float32")
    share = _mean_around(near, reach)
    images = images * (1 - share) + others * share
    return images, ops.maximum(masks * (1 - share), tumours)


def _mean_around(images, reach: int):
    """The mean of the square that ends `reach` pixels from each, of what lies within the slice."""
    width = 2 * reach + 1
    rows = ops.average_pool(images, (width, 1), strides=1, padding="same")
    return ops.average_pool(rows, (1, width), strides=1, padding="same")


def _moved(images, masks, transforms):
    """Both at the places that output pixels come from, in float32."""
    if keras.backend.backend() == "jax":
        return _sampled(images, transforms), _sampled(masks, transforms)
    both = ops.concatenate([ops.cast(images, "float32"), masks * 255.0], axis=-1)
    moved = ops.image.affine_transform(both, transforms, interpolation="bilinear")
    return moved[..., :3], moved[..., 3:] / 255.0


def _sampled(images, transforms):
    """What `ops.image.affine_transform` gives, for JAX, where that multiplies a matrix to find each
    place (by factors of ten bits on a card) and reads eight neighbours rather than four.
    """
    batch, side, _, channels = images.shape
    column = ops.arange(side, dtype="float32")
    row = column[:, None]
    a, b, right, c, d, down = (transforms[:, place, None, None] for place in range(6))
    x, y = a * column + b * row + right, c * column + d * row + down
    left, top = ops.floor(x), ops.floor(y)
    pixels, found = ops.reshape(images, (batch, side * side, channels)), 0.0
    for across, share_x in ((left, left + 1 - x), (left + 1, x - left)):
        for along, share_y in ((top, top + 1 - y), (top + 1, y - top)):
            is_inside = (across >= 0) & (across < side) & (along >= 0) & (along < side)
            places = ops.clip(along, 0, side - 1) * side + ops.clip(across, 0, side - 1)
            places = ops.reshape(ops.cast(places, "int32"), (batch, side * side, 1))
            values = ops.cast(ops.take_along_axis(pixels, places, axis=1), "float32")
            share = ops.where(is_inside, share_x * share_y, 0.0)
            found = found + ops.reshape(values, images.shape) * share[..., None]
    return found
