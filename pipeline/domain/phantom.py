"""Draws brain scans with tumours in the manner of the Kaggle LGG set, from a seed.

S slices, H x W pixels, 3 channels: pre-contrast, FLAIR, post-contrast. For trying and testing
the workflow where real scans may not go: nobody's data is in it. Does not know files, anatomy
beyond a sketch, or the physics of a scanner: a score on it says nothing about patients.

A head is painted in layers, each with its share in [0, 1] of a pixel, over what was there
before. Brightness is relative: white matter before contrast is 1.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from pipeline.domain.scans import CHANNELS, FLAIR, site_of

SITES = {"AX": 0.42, "BR": 0.28, "CY": 0.17, "DV": 0.1, "EK": 0.03}  # share of the patients
PRE, POST = CHANNELS.index("pre"), CHANNELS.index("post")
SKULL = 0.13  # from its inner face to the skin, in head radii
# Brightness in the channels pre, FLAIR, post.
WHITE = (1.0, 0.85, 0.95)
GREY = (0.8, 1.0, 0.85)
FLUID = (0.35, 0.2, 0.35)
CAPS = (0.9, 1.7, 0.9)
VESSEL = (0.5, 0.4, 2.2)
TUMOUR = (0.3, 1.95, 0.35)
ENHANCING = (0.7, 1.5, 2.3)
BONE = (0.15, 0.12, 0.15)
MUSCLE = (0.7, 0.6, 0.85)
FAT = (2.5, 2.2, 2.0)
LINING = (0.7, 1.9, 1.8)
AIR = (0.0, 0.0, 0.0)

Dice = np.random.Generator
Layer = tuple[np.ndarray, tuple[float, float, float]]  # share of each pixel, brightness


@dataclass(frozen=True)
class Scan:
    """All slices of one patient, lowest first."""

    patient: str  # PHANTOM_AX_0007_20010101: the second part is the site
    images: np.ndarray  # (S, H, W, 3) uint8
    masks: np.ndarray  # (S, H, W) bool, True is tumour


@dataclass(frozen=True)
class _Head:
    """Where the pixels lie in a head whose widest slice is a circle of radius 1."""

    t: np.ndarray  # (S, 1, 1) height, 0 lowest slice to 1 highest
    u: np.ndarray  # (1, H, W) to the left (-1) or right (1) ear
    v: np.ndarray  # (1, H, W) to the forehead (-1) or the back (1)
    radius: np.ndarray  # (S, 1, 1) of each slice
    depth: np.ndarray  # (S, H, W) below the inner face of the skull, negative outside
    brow: np.ndarray  # (S, H, W) above the floor of the brain, negative in the face
    pixel: float  # side of a pixel


@dataclass(frozen=True)
class _Lesion:
    distance: np.ndarray  # (S, H, W) 0 in the middle, 1 on the outline that the image shows
    mask: np.ndarray  # (S, H, W) bool, as a reader would outline it: not quite the same


def patient_names(*, patients: int, seed: int) -> list[str]:
    """That many names, all different; more patients keep the names of fewer."""
    return [_patient_name(number, seed) for number in range(1, patients + 1)]


def draw(patient: str, *, slices: int, size_px: int, seed: int) -> Scan:
    """Draw one patient: the same for the same arguments, whoever else is drawn.

    Args:
        patient: any name; its second part, between underscores, says how the site scans.
        slices: S on average over patients; each has 0.75 to 1.25 times that, at least 5.
        size_px: H = W, from 32 to 512. A smaller scan shows the same head, coarser.
        seed: another one draws another head under the same name.

    Returns:
        A scan with tumour in at least one slice, and none in the lowest and the highest. In a
        tenth of the patients post, or pre and post, are copies of FLAIR; in the others one or
        two channels of a tumour-free slice may be all zero.
    """
    head = _head(_dice(seed, patient, "head"), slices, size_px)
    lesion = _lesions(_dice(seed, patient, "lesion"), head)
    layers = [
        *_brain(_dice(seed, patient, "brain"), head, lesion),
        *_tumour(_dice(seed, patient, "tumour"), head, lesion),
        *_hull(_dice(seed, patient, "hull"), head),
    ]
    site = _dice(seed, "site", site_of(patient))
    images = _scanned(site, _dice(seed, patient, "scanner"), _painted(layers), head)
    images = _with_gaps(_dice(seed, patient, "sequences"), images, lesion.mask)
    return Scan(patient, images, lesion.mask)


def _dice(*of: object) -> Dice:
    """A generator that depends on these words alone, on every machine and in every process."""
    digest = hashlib.sha256("/".join(map(str, of)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _patient_name(number: int, seed: int) -> str:
    dice = _dice(seed, "name", number)
    site = dice.choice(list(SITES), p=list(SITES.values()))
    year, month, day = dice.integers((1995, 1, 1), (2009, 13, 29))
    return f"PHANTOM_{site}_{number:04d}_{year}{month:02d}{day:02d}"


def _head(dice: Dice, slices: int, size_px: int) -> _Head:
    count = max(5, round(slices * dice.uniform(0.75, 1.25)))
    t = np.linspace(0, 1, count, dtype=np.float32).reshape(-1, 1, 1)
    place = (np.arange(size_px, dtype=np.float32) + 0.5) * 2 / size_px - 1
    x, y = place.reshape(1, 1, -1) - dice.uniform(-0.05, 0.05), place.reshape(1, -1, 1)
    tilt = dice.uniform(-0.16, 0.16)  # radians
    cos, sin = math.cos(tilt), math.sin(tilt)
    wide, long = dice.uniform(0.6, 0.72), dice.uniform(0.78, 0.9)
    u, v = (cos * x + sin * y) / wide, (cos * y - sin * x) / long
    widest, tall = dice.uniform(0.4, 0.5), dice.uniform(0.65, 0.7)
    radius = np.sqrt(1 - ((t - widest) / tall) ** 2)
    bumps = _smooth(dice, (count, size_px, size_px), cells=5)
    depth = radius - SKULL - _norm(u, v) + 0.04 * bumps
    brow = t - 0.22 + 0.3 * (v + 0.3) + 0.04 * bumps
    return _Head(t, u, v, radius, depth, brow, 2 / size_px / long)


def _lesions(dice: Dice, head: _Head) -> _Lesion:
    """One lesion, or two in a fifth of the patients; never in the first or last slice."""
    distance = _blob(dice, head, largest=0.48)
    if dice.uniform() < 0.2:
        distance = np.minimum(distance, _blob(dice, head, largest=0.2))
    distance += 0.28 * _smooth(dice, head.depth.shape, cells=9)
    distance += 0.2 * _smooth(dice, head.depth.shape, cells=22, levels=10)
    read = distance + 0.1 * _smooth(dice, head.depth.shape, cells=18)
    read[np.minimum(head.depth, head.brow) < 0] = np.inf
    return _Lesion(distance, read <= max(1.0, float(read.min())))


def _blob(dice: Dice, head: _Head, *, largest: float) -> np.ndarray:
    """(S, H, W) distance from the middle of an ellipsoid, 1 on its surface."""
    heights = head.t.ravel()
    level = int(dice.choice(np.flatnonzero((heights > 0.38) & (heights < 0.7))))
    middle, radius = float(heights[level]), float(head.radius.ravel()[level])
    u0 = dice.uniform(0.15, 0.6) * dice.choice((-1.0, 1.0)).item()
    v0 = dice.uniform(-1, 1) * (0.62**2 - u0**2) ** 0.5
    size = 0.15 + (largest - 0.15) * dice.uniform() ** 1.5
    wide, long = (size * dice.uniform(0.75, 1.25, 2)).tolist()
    # The outline moves by at most 0.87: short of the first slice and of the last.
    tall = min(size * dice.uniform(0.45, 0.95), middle / 1.9, (1 - middle) / 1.9)
    u, v = (head.u - u0 * radius) / wide, (head.v - v0 * radius) / long
    return _norm(u, v, (head.t - middle) / tall)


def _brain(dice: Dice, head: _Head, lesion: _Lesion) -> list[Layer]:
    """White matter, and on it what is grey, bright or dark without being tumour."""
    lumps = _smooth(dice, head.depth.shape, cells=7)
    grain = _smooth(dice, head.depth.shape, cells=40, levels=12)
    folds = np.abs(_smooth(dice, head.depth.shape, cells=17, levels=10))
    rim = _edge(0.24 - head.depth + 0.06 * lumps, 0.12)
    ventricle = _ventricles(dice, head) + 0.15 * lumps
    tips = _edge(np.abs(head.v) - 0.2, 0.1) * dice.uniform(0, 0.75)
    furrows = _edge(0.09 - folds, 0.1) * rim * dice.uniform(0.4, 1.0)
    gap = _edge(0.012 - np.abs(head.u + 0.03 * lumps), 2 * head.pixel) * _edge(head.t - 0.5, 0.2)
    fluid = np.maximum(np.maximum(furrows, gap), _edge(1 - ventricle, 0.3))
    return [
        (np.ones(head.depth.shape, np.float32), WHITE),
        (np.maximum(rim * _edge(0.42 - folds, 0.3), _edge(lumps - 0.3, 0.5)), GREY),
        (_edge(1.45 - ventricle, 0.5) * tips, CAPS),
        (_edge(grain + 0.8 * lumps - 1.25, 0.2) * dice.uniform(0.2, 1.0), CAPS),
        (_edge(-1.2 - grain + 0.6 * lumps, 0.2), VESSEL),
        (fluid * _edge(lesion.distance - 1, 0.2), FLUID),
    ]


def _ventricles(dice: Dice, head: _Head) -> np.ndarray:
    """(S, H, W) distance from the middle of the nearer one, 1 on its outline."""
    size = dice.uniform(0.7, 1.5)
    u = (np.abs(head.u) - 0.09 - 0.35 * (head.v - 0.05) ** 2) / 0.075
    return _norm(u / size, (head.v - 0.05) / 0.3 / size, (head.t - 0.55) / 0.16)


def _tumour(dice: Dice, head: _Head, lesion: _Lesion) -> list[Layer]:
    """Bright on FLAIR and dark elsewhere, faint in some; every second one takes up contrast."""
    texture = 1 + 0.25 * _smooth(dice, head.depth.shape, cells=14)
    share = _edge(1 - lesion.distance, dice.uniform(0.15, 0.5)) * dice.uniform(0.3, 0.72)
    layers: list[Layer] = [(share * texture, TUMOUR)]
    if dice.uniform() < 0.5:
        ring = dice.uniform(0.0, 0.7)  # 0: a spot in the middle
        glow = _edge(0.12 - np.abs(lesion.distance - ring), 0.2) * dice.uniform(0.3, 0.9)
        layers.append((glow, ENHANCING))
    return layers


def _hull(dice: Dice, head: _Head) -> list[Layer]:
    """Face, skull, scalp and the air around."""
    lumps = _smooth(dice, head.depth.shape, cells=8)
    grain = _smooth(dice, head.depth.shape, cells=24, levels=10)
    soft = 2 * head.pixel
    fat = SKULL * dice.uniform(0.45, 0.7) / head.radius
    face = _edge(-head.brow, 0.015)
    u, v = (np.abs(head.u) - 0.36) / 0.19, (head.v + 0.62) / 0.15
    eye = _norm(u, v, (head.t - 0.16) / 0.09)  # distance from its middle, 1 on its outline
    return [
        (face, MUSCLE),
        (face * np.maximum(_edge(grain + 0.4 * lumps - 0.1, 0.2), _edge(1.5 - eye, 0.2)), FAT),
        (face * _edge(lumps - 0.2 - np.abs(head.u), 0.15), LINING),
        (face * _edge(-0.35 - lumps, 0.1), AIR),
        (face * _edge(1 - eye, 0.2), FLUID),
        (_edge(-head.depth, soft), BONE),
        (_edge(fat - SKULL - head.depth, soft) * (1 - 0.25 * np.abs(grain)), FAT),
        (_edge(-SKULL - head.depth, soft), AIR),
    ]


def _painted(layers: list[Layer]) -> np.ndarray:
    """(3, S, H, W) brightness, later layers over earlier ones."""
    planes = np.zeros((len(CHANNELS), *layers[0][0].shape), np.float32)
    for share, brightness in layers:
        for plane, value in zip(planes, brightness, strict=True):
            plane += (value - plane) * share
    return planes


def _scanned(site: Dice, dice: Dice, planes: np.ndarray, head: _Head) -> np.ndarray:
    """(S, H, W, 3) uint8, as the site's scanner shows that brightness on that day."""
    curve, gain = site.uniform(-0.12, 0.2, 3), site.uniform(45, 85, 3)
    noise = site.uniform(0.02, 0.05) * (2.5 if dice.uniform() < 0.15 else 1.0)
    gain = gain * dice.uniform(0.7, 1.35, 3) * dice.uniform(0.85, 1.2)
    gain[FLAIR] *= 0.3 if dice.uniform() < 0.06 else 1.0
    coil = _coil(dice, head)
    shown = []
    for plane, bend, scale in zip(planes, curve.tolist(), gain.tolist(), strict=True):
        grain = noise * dice.standard_normal(head.depth.shape, dtype=np.float32)
        signal = np.abs(plane * (1 + bend * (plane - 1)) * coil + grain)
        shown.append(np.minimum(signal * scale, 255).astype(np.uint8))
    return np.stack(shown, axis=-1)


def _coil(dice: Dice, head: _Head) -> np.ndarray:
    """(S, H, W) how much of the signal arrives: uneven over the head and from slice to slice.

    A seventh of the patients moved, which brightens and darkens rows.
    """
    right, back, rim = dice.uniform((-0.15, -0.15, -0.05), (0.15, 0.15, 0.25)).tolist()
    field = 1 + right * head.u + back * head.v + rim * (head.u**2 + head.v**2 - 0.5)
    moved = 0.25 if dice.uniform() < 0.15 else 0.0
    rows = dice.uniform(-1, 1, (len(head.t), 42, 1)).astype(np.float32)
    rows = _spread(rows, axis=1, steps=head.depth.shape[1])
    level = dice.uniform(0.93, 1.07, head.t.shape).astype(np.float32)
    return np.asarray(field * level * (1 + moved * rows))


def _with_gaps(dice: Dice, images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The images with whole sequences that copy FLAIR, or single channels that are zero."""
    images, missing = images.copy(), dice.uniform()
    if missing < 0.1:
        copies = [POST] if missing < 0.05 else [PRE, POST]
        images[..., copies] = images[..., [FLAIR]]
        return images
    gaps = ([FLAIR], [POST], [PRE], [FLAIR, POST])
    for number in np.flatnonzero(~mask.any(axis=(1, 2))):
        if dice.uniform() < 0.025:
            images[number][..., gaps[dice.choice(4, p=(0.35, 0.45, 0.05, 0.15))]] = 0
    return images


def _norm(*parts: np.ndarray) -> np.ndarray:
    """Root of the sum of the squares."""
    return np.asarray(np.sqrt(sum(part**2 for part in parts)))


def _edge(above: np.ndarray, width: float) -> np.ndarray:
    """0 where `above` is negative, 1 where it is positive, a ramp of that width between."""
    return np.asarray(np.clip(above / width + 0.5, 0, 1))


def _smooth(dice: Dice, shape: tuple[int, ...], *, cells: int, levels: int = 6) -> np.ndarray:
    """Noise in [-1.5, 1.5], mostly within 0.5, in lumps of 1 / cells of a side."""
    noise = dice.uniform(-2, 2, (levels + 2, cells + 2, cells + 2)).astype(np.float32)
    for axis in (2, 1, 0):
        noise = _spread(noise, axis=axis, steps=shape[axis])
    return np.asarray(np.clip(noise, -1.5, 1.5))


def _spread(knots: np.ndarray, *, axis: int, steps: int) -> np.ndarray:
    """Draw out one axis to that many steps, along quadratic splines between the knots."""
    place = (np.arange(steps) + 0.5) / steps * (knots.shape[axis] - 2)
    first = place.astype(int)
    shape = [steps if number == axis else 1 for number in range(knots.ndim)]
    f = (place - first).astype(np.float32).reshape(shape)
    weights = ((1 - f) ** 2 / 2, 0.5 + f - f**2, f**2 / 2)
    parts = (np.take(knots, first + k, axis=axis) * w for k, w in enumerate(weights))
    return np.asarray(sum(parts))
