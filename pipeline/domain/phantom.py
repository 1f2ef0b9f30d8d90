"""Generate synthetic brain scans with tumours, in the style of the Kaggle LGG set, from a seed.

S slices, H x W pixels, 3 channels: pre-contrast, FLAIR, post-contrast. The scans serve to try and
test the pipeline where real scans are not available, and contain no patient's data. Anatomy is
only sketched and the physics of a scanner is not modelled: a score on these scans says nothing
about patients. Does not know files.

A head is composed of layers. Each covers a share in [0, 1] of a pixel, on top of the layers
before it. Brightness is relative: white matter before contrast is 1.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from pipeline.domain.scans import CHANNELS, FLAIR, POST, PRE, site_of

SITES = {"AX": 0.42, "BR": 0.28, "CY": 0.17, "DV": 0.1, "EK": 0.03}  # share of the patients
SKULL = 0.13  # distance from the inner face of the skull to the skin, in head radii
# Brightness of tissues in the channels pre, FLAIR, post.
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

Rng = np.random.Generator
Layer = tuple[np.ndarray, tuple[float, float, float]]  # (S, H, W) share of pixels, brightness


@dataclass(frozen=True)
class PhantomScan:
    """All slices of one patient, lowest first.

    patient: such as PHANTOM_AX_0007_20010101; the second part is the site.
    images: (S, H, W, 3) uint8.
    masks: (S, H, W) bool, True is tumour.
    """

    patient: str
    images: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class _Head:
    """Coordinates of pixels in a head whose widest slice is a circle of radius 1.

    t: (S, 1, 1) height, from 0 in the lowest slice to 1 in the highest.
    u: (1, H, W) from the left ear (-1) to the right (1).
    v: (1, H, W) from the forehead (-1) to the back (1).
    radius: (S, 1, 1) of the head in each slice.
    depth: (S, H, W) below the inner face of the skull, negative outside.
    brow: (S, H, W) above the floor of the brain, negative in the face.
    pixel: side of a pixel.
    """

    t: np.ndarray
    u: np.ndarray
    v: np.ndarray
    radius: np.ndarray
    depth: np.ndarray
    brow: np.ndarray
    pixel: float


@dataclass(frozen=True)
class _Lesion:
    """A tumour in the image, and its reference mask.

    distance: (S, H, W) 0 in the centre, 1 on the outline that is visible in the image.
    mask: (S, H, W) bool, as a reader would outline it: close to the visible outline, not equal.
    """

    distance: np.ndarray
    mask: np.ndarray


def patient_names(*, patients: int, seed: int) -> list[str]:
    """Return names of patients, all different; the first names do not depend on the number."""
    return [_patient_name(number, seed) for number in range(1, patients + 1)]


def generate(patient: str, *, slices: int, size_px: int, seed: int) -> PhantomScan:
    """Generate the scan of one patient; it depends on these arguments alone.

    Args:
        patient: any name. Its second part, between underscores, is the site, which determines
            brightness, contrast and noise.
        slices: S on average over patients; each has 0.75 to 1.25 times that, at least 5.
        size_px: H = W, from 32 to 512. A smaller scan shows the same head at lower resolution.
        seed: another seed generates another head under the same name.

    Returns:
        A scan with tumour in at least one slice, and none in the lowest and the highest. In a
        tenth of the patients post, or pre and post, are copies of FLAIR. In the others, one or
        two channels of a tumour-free slice may be all zero.
    """
    head = _head(_rng(seed, patient, "head"), slices, size_px)
    lesion = _lesions(_rng(seed, patient, "lesion"), head)
    layers = [
        *_brain(_rng(seed, patient, "brain"), head, lesion),
        *_tumour(_rng(seed, patient, "tumour"), head, lesion),
        *_hull(_rng(seed, patient, "hull"), head),
    ]
    site = _rng(seed, "site", site_of(patient))
    images = _acquire(site, _rng(seed, patient, "scanner"), _render_layers(layers), head)
    images = _drop_sequences(_rng(seed, patient, "sequences"), images, lesion.mask)
    return PhantomScan(patient, images, lesion.mask)


def _rng(*key: object) -> Rng:
    """Return a generator that depends on the key alone, on every machine and in every process."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _patient_name(number: int, seed: int) -> str:
    rng = _rng(seed, "name", number)
    site = rng.choice(list(SITES), p=list(SITES.values()))
    year, month, day = rng.integers((1995, 1, 1), (2009, 13, 29))
    return f"PHANTOM_{site}_{number:04d}_{year}{month:02d}{day:02d}"


def _head(rng: Rng, slices: int, size_px: int) -> _Head:
    """Place a head of random size, tilt and number of slices on the grid of pixels."""
    count = max(5, round(slices * rng.uniform(0.75, 1.25)))
    t = np.linspace(0, 1, count, dtype=np.float32).reshape(-1, 1, 1)
    grid = (np.arange(size_px, dtype=np.float32) + 0.5) * 2 / size_px - 1
    x, y = grid.reshape(1, 1, -1) - rng.uniform(-0.05, 0.05), grid.reshape(1, -1, 1)
    tilt = rng.uniform(-0.16, 0.16)  # radians
    cos, sin = math.cos(tilt), math.sin(tilt)
    wide, long = rng.uniform(0.6, 0.72), rng.uniform(0.78, 0.9)
    u, v = (cos * x + sin * y) / wide, (cos * y - sin * x) / long
    widest, tall = rng.uniform(0.4, 0.5), rng.uniform(0.65, 0.7)
    radius = np.sqrt(1 - ((t - widest) / tall) ** 2)
    bumps = _smooth(rng, (count, size_px, size_px), cells=5)
    depth = radius - SKULL - _norm(u, v) + 0.04 * bumps
    brow = t - 0.22 + 0.3 * (v + 0.3) + 0.04 * bumps
    return _Head(t, u, v, radius, depth, brow, 2 / size_px / long)


def _lesions(rng: Rng, head: _Head) -> _Lesion:
    """Place one lesion, or two in a fifth of the patients; never in the first or last slice."""
    distance = _ellipsoid(rng, head, largest=0.48)
    if rng.uniform() < 0.2:
        distance = np.minimum(distance, _ellipsoid(rng, head, largest=0.2))
    distance += 0.28 * _smooth(rng, head.depth.shape, cells=9)
    distance += 0.2 * _smooth(rng, head.depth.shape, cells=22, levels=10)
    outlined = distance + 0.1 * _smooth(rng, head.depth.shape, cells=18)
    outlined[np.minimum(head.depth, head.brow) < 0] = np.inf
    return _Lesion(distance, outlined <= max(1.0, float(outlined.min())))


def _ellipsoid(rng: Rng, head: _Head, *, largest: float) -> np.ndarray:
    """Return the (S, H, W) distance from the centre of a random ellipsoid, 1 on its surface."""
    heights = head.t.ravel()
    level = int(rng.choice(np.flatnonzero((heights > 0.38) & (heights < 0.7))))
    centre, radius = float(heights[level]), float(head.radius.ravel()[level])
    u0 = rng.uniform(0.15, 0.6) * rng.choice((-1.0, 1.0)).item()
    v0 = rng.uniform(-1, 1) * (0.62**2 - u0**2) ** 0.5
    size = 0.15 + (largest - 0.15) * rng.uniform() ** 1.5
    wide, long = (size * rng.uniform(0.75, 1.25, 2)).tolist()
    # The noise shifts the outline by at most 0.87, so it stays clear of the first and last slice.
    tall = min(size * rng.uniform(0.45, 0.95), centre / 1.9, (1 - centre) / 1.9)
    u, v = (head.u - u0 * radius) / wide, (head.v - v0 * radius) / long
    return _norm(u, v, (head.t - centre) / tall)


def _brain(rng: Rng, head: _Head, lesion: _Lesion) -> list[Layer]:
    """Return white matter, and the grey, bright and dark structures in it that are not tumour."""
    lumps = _smooth(rng, head.depth.shape, cells=7)
    grain = _smooth(rng, head.depth.shape, cells=40, levels=12)
    folds = np.abs(_smooth(rng, head.depth.shape, cells=17, levels=10))
    rim = _edge(0.24 - head.depth + 0.06 * lumps, 0.12)
    ventricle = _ventricles(rng, head) + 0.15 * lumps
    tips = _edge(np.abs(head.v) - 0.2, 0.1) * rng.uniform(0, 0.75)
    furrows = _edge(0.09 - folds, 0.1) * rim * rng.uniform(0.4, 1.0)
    gap = _edge(0.012 - np.abs(head.u + 0.03 * lumps), 2 * head.pixel) * _edge(head.t - 0.5, 0.2)
    fluid = np.maximum(np.maximum(furrows, gap), _edge(1 - ventricle, 0.3))
    return [
        (np.ones(head.depth.shape, np.float32), WHITE),
        (np.maximum(rim * _edge(0.42 - folds, 0.3), _edge(lumps - 0.3, 0.5)), GREY),
        (_edge(1.45 - ventricle, 0.5) * tips, CAPS),
        (_edge(grain + 0.8 * lumps - 1.25, 0.2) * rng.uniform(0.2, 1.0), CAPS),
        (_edge(-1.2 - grain + 0.6 * lumps, 0.2), VESSEL),
        (fluid * _edge(lesion.distance - 1, 0.2), FLUID),
    ]


def _ventricles(rng: Rng, head: _Head) -> np.ndarray:
    """Return the (S, H, W) distance from the centre of the nearer ventricle, 1 on its outline."""
    size = rng.uniform(0.7, 1.5)
    u = (np.abs(head.u) - 0.09 - 0.35 * (head.v - 0.05) ** 2) / 0.075
    return _norm(u / size, (head.v - 0.05) / 0.3 / size, (head.t - 0.55) / 0.16)


def _tumour(rng: Rng, head: _Head, lesion: _Lesion) -> list[Layer]:
    """Return a tumour bright on FLAIR and dark elsewhere, faint in some; half of them enhance."""
    texture = 1 + 0.25 * _smooth(rng, head.depth.shape, cells=14)
    share = _edge(1 - lesion.distance, rng.uniform(0.15, 0.5)) * rng.uniform(0.3, 0.72)
    layers: list[Layer] = [(share * texture, TUMOUR)]
    if rng.uniform() < 0.5:
        ring = rng.uniform(0.0, 0.7)  # 0: a spot in the centre
        glow = _edge(0.12 - np.abs(lesion.distance - ring), 0.2) * rng.uniform(0.3, 0.9)
        layers.append((glow, ENHANCING))
    return layers


def _hull(rng: Rng, head: _Head) -> list[Layer]:
    """Return face, skull, scalp and the surrounding air."""
    lumps = _smooth(rng, head.depth.shape, cells=8)
    grain = _smooth(rng, head.depth.shape, cells=24, levels=10)
    soft = 2 * head.pixel
    fat = SKULL * rng.uniform(0.45, 0.7) / head.radius
    face = _edge(-head.brow, 0.015)
    u, v = (np.abs(head.u) - 0.36) / 0.19, (head.v + 0.62) / 0.15
    eye = _norm(u, v, (head.t - 0.16) / 0.09)  # distance from its centre, 1 on its outline
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


def _render_layers(layers: list[Layer]) -> np.ndarray:
    """Return the (3, S, H, W) brightness of layers, later ones on top of earlier ones."""
    planes = np.zeros((len(CHANNELS), *layers[0][0].shape), np.float32)
    for share, brightness in layers:
        for plane, value in zip(planes, brightness, strict=True):
            plane += (value - plane) * share
    return planes


def _acquire(site: Rng, rng: Rng, planes: np.ndarray, head: _Head) -> np.ndarray:
    """Return the (S, H, W, 3) uint8 images that the site's scanner makes of this brightness.

    Args:
        site: generator of what all scans of the site share.
        rng: generator of what differs from scan to scan.
        planes: (3, S, H, W) brightness.
    """
    curve, gain = site.uniform(-0.12, 0.2, 3), site.uniform(45, 85, 3)
    noise = site.uniform(0.02, 0.05) * (2.5 if rng.uniform() < 0.15 else 1.0)
    gain = gain * rng.uniform(0.7, 1.35, 3) * rng.uniform(0.85, 1.2)
    gain[FLAIR] *= 0.3 if rng.uniform() < 0.06 else 1.0
    sensitivity = _coil_sensitivity(rng, head)
    channels = []
    for plane, bend, scale in zip(planes, curve.tolist(), gain.tolist(), strict=True):
        grain = noise * rng.standard_normal(head.depth.shape, dtype=np.float32)
        signal = np.abs(plane * (1 + bend * (plane - 1)) * sensitivity + grain)
        channels.append(np.minimum(signal * scale, 255).astype(np.uint8))
    return np.stack(channels, axis=-1)


def _coil_sensitivity(rng: Rng, head: _Head) -> np.ndarray:
    """Return the (S, H, W) share of the signal received: it varies over the head and by slice.

    About one patient in seven moved, which brightens and darkens rows.
    """
    right, back, rim = rng.uniform((-0.15, -0.15, -0.05), (0.15, 0.15, 0.25)).tolist()
    field = 1 + right * head.u + back * head.v + rim * (head.u**2 + head.v**2 - 0.5)
    moved = 0.25 if rng.uniform() < 0.15 else 0.0
    rows = rng.uniform(-1, 1, (len(head.t), 42, 1)).astype(np.float32)
    rows = _interpolate(rows, axis=1, steps=head.depth.shape[1])
    level = rng.uniform(0.93, 1.07, head.t.shape).astype(np.float32)
    return np.asarray(field * level * (1 + moved * rows))


def _drop_sequences(rng: Rng, images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the images with whole sequences replaced by FLAIR, or with single channels zeroed."""
    images, chance = images.copy(), rng.uniform()
    if chance < 0.1:
        copies = [POST] if chance < 0.05 else [PRE, POST]
        images[..., copies] = images[..., [FLAIR]]
        return images
    gaps = ([FLAIR], [POST], [PRE], [FLAIR, POST])
    for number in np.flatnonzero(~mask.any(axis=(1, 2))):
        if rng.uniform() < 0.025:
            images[number][..., gaps[rng.choice(4, p=(0.35, 0.45, 0.05, 0.15))]] = 0
    return images


def _norm(*parts: np.ndarray) -> np.ndarray:
    """Return the root of the sum of squares."""
    return np.asarray(np.sqrt(sum(part**2 for part in parts)))


def _edge(above: np.ndarray, width: float) -> np.ndarray:
    """Return 0 where `above` is negative and 1 where it is positive, with a ramp of that width."""
    return np.asarray(np.clip(above / width + 0.5, 0, 1))


def _smooth(rng: Rng, shape: tuple[int, ...], *, cells: int, levels: int = 6) -> np.ndarray:
    """Return noise in [-1.5, 1.5], mostly within 0.5, in lumps of 1 / cells of a side.

    Args:
        cells: lumps along a row and a column.
        levels: lumps from the lowest slice to the highest.
    """
    noise = rng.uniform(-2, 2, (levels + 2, cells + 2, cells + 2)).astype(np.float32)
    for axis in (2, 1, 0):
        noise = _interpolate(noise, axis=axis, steps=shape[axis])
    return np.asarray(np.clip(noise, -1.5, 1.5))


def _interpolate(knots: np.ndarray, *, axis: int, steps: int) -> np.ndarray:
    """Resample one axis to that many steps, along quadratic splines between the knots."""
    positions = (np.arange(steps) + 0.5) / steps * (knots.shape[axis] - 2)
    first = positions.astype(int)
    shape = [steps if number == axis else 1 for number in range(knots.ndim)]
    f = (positions - first).astype(np.float32).reshape(shape)
    weights = ((1 - f) ** 2 / 2, 0.5 + f - f**2, f**2 / 2)
    parts = (np.take(knots, first + k, axis=axis) * w for k, w in enumerate(weights))
    return np.asarray(sum(parts))
