from dataclasses import replace

import numpy as np
import pytest
from keras import ops

from pipeline.network.augment import Drawn, Settings, apply, draw

OFF = Settings(flip=0, rotate_degrees=0, scale=0, shift=0, intensity=0)
FULL = Settings(flip=0.5, rotate_degrees=30, scale=0.2, shift=0.1, intensity=0.3)
SIDE = 8


class Most:
    """A generator that always draws the most of a range, and mirrors whatever may be."""

    def uniform(self, low, high, size):
        return np.full(size, high, np.float64)

    def random(self, size):
        return np.zeros(size)


class Least(Most):
    def uniform(self, low, high, size):
        return np.full(size, low, np.float64)


def noise(slices: int = 3, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks; a pixel of a mask is no tumour, half or all."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (slices, side, side, 3), dtype=np.uint8)
    return images, (generator.integers(0, 3, (slices, side, side, 1)) / 2).astype(np.float32)


def square(rows: slice, columns: slice, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """One slice that is white where its mask is tumour, and black elsewhere."""
    mask = np.zeros((1, side, side, 1), np.float32)
    mask[:, rows, columns] = 1
    return np.repeat(mask * 255, 3, axis=-1).astype(np.uint8), mask


def changed(images, masks, settings, generator=None) -> tuple[np.ndarray, np.ndarray]:
    generator = generator or np.random.default_rng(5)
    slices, side = images.shape[:2]
    return applied(images, masks, draw(generator, slices=slices, side=side, settings=settings))


def applied(images, masks, drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    return tuple(ops.convert_to_numpy(one) for one in apply(images, masks, drawn))


def test_off_changes_nothing():
    images, masks = noise()
    new_images, new_masks = changed(images, masks, OFF)
    assert np.array_equal(new_images, images)
    assert np.array_equal(new_masks, masks)


@pytest.mark.parametrize("side", [7, 8])
def test_flip_share_one_mirrors_every_slice_left_to_right_exactly(side):
    images, masks = noise(side=side)
    new_images, new_masks = changed(images, masks, replace(OFF, flip=1))
    assert np.array_equal(new_images, images[:, :, ::-1])
    assert np.array_equal(new_masks, masks[:, :, ::-1])


def test_flip_share_one_half_mirrors_about_every_second_slice():
    drawn = draw(np.random.default_rng(1), slices=1000, side=SIDE, settings=replace(OFF, flip=0.5))
    assert np.mean(drawn.transforms[:, 0] == -1) == pytest.approx(0.5, abs=0.05)
    assert set(drawn.transforms[:, 0]) == {-1, 1}


@pytest.mark.parametrize("seed", range(4))
def test_masks_move_with_images(seed):
    images, masks = square(slice(5, 11), slice(3, 8), side=16)
    settings = replace(FULL, intensity=0)
    new_images, new_masks = changed(images, masks, settings, np.random.default_rng(seed))
    assert not np.array_equal(new_masks, masks)
    assert new_masks.sum() > 0
    for channel in range(3):
        assert np.allclose(new_images[..., channel], new_masks[..., 0] * 255, atol=0.51)


def test_slices_of_a_batch_are_changed_each_in_its_own_way():
    images, masks = square(slice(5, 11), slice(3, 8), side=16)
    images, masks = np.repeat(images, 4, axis=0), np.repeat(masks, 4, axis=0)
    new_images, _ = changed(images, masks, FULL)
    assert len({image.tobytes() for image in new_images}) == 4


def test_the_most_shift_moves_a_square_by_that_share_and_black_moves_in():
    # A quarter of 8 px: every pixel comes from 2 px further right and further down.
    images, masks = square(slice(4, 6), slice(3, 7))
    images[:, 0] = 255
    new_images, new_masks = changed(images, masks, replace(OFF, shift=0.25), Most())
    expected_images, expected_masks = square(slice(2, 4), slice(1, 5))
    assert np.array_equal(new_masks, expected_masks)
    assert np.array_equal(new_images, expected_images)


def test_a_quarter_turn_turns_a_square_about_the_middle():
    images, masks = square(slice(0, 3), slice(1, 3))
    new_images, new_masks = changed(images, masks, replace(OFF, rotate_degrees=90), Most())
    assert np.allclose(new_masks, np.rot90(masks, axes=(1, 2)), atol=1e-5)
    assert np.array_equal(new_images, np.rot90(images, axes=(1, 2)))


def test_a_quarter_turn_either_way_is_the_opposite_turn():
    images, masks = square(slice(0, 3), slice(1, 3))
    _, one = changed(images, masks, replace(OFF, rotate_degrees=90), Most())
    _, other = changed(images, masks, replace(OFF, rotate_degrees=90), Least())
    assert np.allclose(one, np.rot90(other, 2, axes=(1, 2)), atol=1e-5)


@pytest.mark.parametrize(("generator", "times"), [(Most(), 1.25**2), (Least(), 0.75**2)])
def test_scale_stretches_a_square_by_that_share_along_each_side(generator, times):
    _, masks = square(slice(10, 22), slice(10, 22), side=32)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    _, new_masks = changed(images, masks, replace(OFF, scale=0.25), generator)
    assert new_masks.sum() == pytest.approx(144 * times, rel=0.03)


@pytest.mark.parametrize(
    ("generator", "expected"),
    [(Most(), [0, 15, 150, 255, 255]), (Least(), [0, 5, 50, 100, 128])],
)
def test_intensity_brightens_or_darkens_and_never_leaves_0_to_255(generator, expected):
    images = np.zeros((1, 5, 5, 3), np.uint8)
    images[0, 0] = np.array([0, 10, 100, 200, 255])[:, None]  # 127.5 goes to the even 128
    _, masks = square(slice(0, 2), slice(0, 2), side=5)
    new_images, new_masks = changed(images, masks, replace(OFF, intensity=0.5), generator)
    assert new_images[0, 0].tolist() == [[value] * 3 for value in expected]
    assert np.array_equal(new_masks, masks)


def test_intensity_drawn_at_random_never_wraps_around():
    images = np.full((50, 2, 2, 3), 250, np.uint8)
    masks = np.zeros((50, 2, 2, 1), np.float32)
    new_images, _ = changed(images, masks, replace(OFF, intensity=0.9))
    assert new_images.min() >= 24  # 250 * 0.1, less rounding; what wrapped would come near 0
    assert (new_images == 255).mean() == pytest.approx(0.5, abs=0.15)  # cut where it would be more


def test_each_sequence_of_a_slice_has_an_intensity_of_its_own():
    drawn = draw(
        np.random.default_rng(1), slices=4, side=SIDE, settings=replace(OFF, intensity=0.3)
    )
    assert drawn.gains.shape == (4, 1, 1, 3)
    assert len(set(drawn.gains.ravel())) == 12
    assert drawn.gains.min() >= 0.7 and drawn.gains.max() <= 1.3


def test_one_seed_gives_one_result():
    images, masks = noise()
    first, again = (changed(images, masks, FULL, np.random.default_rng(7)) for _ in "ab")
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_another_seed_gives_another_result():
    images, masks = noise()
    one, other = (changed(images, masks, FULL, np.random.default_rng(s)) for s in (7, 8))
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("settings", [OFF, FULL], ids=["off", "full"])
@pytest.mark.parametrize(("slices", "side"), [(1, 16), (5, 9)])
def test_types_and_shapes_are_kept(settings, slices, side):
    images, masks = noise(slices, side)
    new_images, new_masks = changed(images, masks, settings)
    assert (new_images.dtype, new_images.shape) == (np.uint8, (slices, side, side, 3))
    assert (new_masks.dtype, new_masks.shape) == (np.float32, (slices, side, side, 1))


def test_masks_stay_shares():
    _, masks = changed(*noise(slices=20), FULL)
    assert masks.min() >= 0 and masks.max() <= 1


def test_what_comes_in_is_not_changed_in_place():
    images, masks = noise()
    before = images.copy(), masks.copy()
    changed(images, masks, FULL)
    assert np.array_equal(images, before[0])
    assert np.array_equal(masks, before[1])


@pytest.mark.parametrize(
    "setting", ["flip", "rotate_degrees", "scale", "shift", "intensity", "missing", "paste"]
)
def test_one_setting_alone_switches_augmentation_on(setting):
    assert OFF.is_off
    assert not replace(OFF, **{setting: 0.1}).is_off


@pytest.mark.parametrize(
    ("setting", "moves"),
    [
        ("flip", False),
        ("intensity", False),
        ("rotate_degrees", True),
        ("scale", True),
        ("shift", True),
    ],
)
def test_turning_stretching_and_shifting_are_moves(setting, moves):
    assert replace(OFF, **{setting: 0.1}).moves is moves


def test_a_missing_sequence_is_replaced_by_flair_as_in_the_set():
    settings = Settings(flip=0, rotate_degrees=0, scale=0, shift=0, intensity=0, missing=0.5)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    masks = np.zeros((200, 8, 8, 1), np.float32)
    drawn = draw(np.random.default_rng(1), slices=200, side=8, settings=settings)
    found = ops.convert_to_numpy(apply(images, masks, drawn)[0])
    pre, flair, post = (images[..., channel] for channel in range(3))
    kinds = []
    for number in range(200):
        for kind, parts in {
            "whole": (pre, flair, post), "post": (pre, flair, flair), "both": (flair,) * 3,
        }.items():  # fmt: skip
            if np.array_equal(found[number], np.stack([p[number] for p in parts], axis=-1)):
                kinds.append(kind)
    assert len(kinds) == 200
    assert kinds.count("whole") / 200 == pytest.approx(0.5, abs=0.1)
    assert kinds.count("both") / 200 == pytest.approx(0.25, abs=0.1)


def test_switching_missing_on_draws_everything_else_as_before():
    plain = Settings(flip=0.5, rotate_degrees=9, scale=0.1, shift=0.1, intensity=0.2)
    both = [
        draw(np.random.default_rng(1), slices=6, side=8, settings=settings)
        for settings in (plain, replace(plain, missing=0.3))
    ]
    assert both[0].sources is None
    assert np.array_equal(both[0].transforms, both[1].transforms)
    assert np.array_equal(both[0].gains, both[1].gains)


def pair(side: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Two slices, 50 and 200 bright: a tumour left of the middle in one, right of it in the other."""
    images = np.empty((2, side, side, 3), np.uint8)
    images[:] = np.array([50, 200], np.uint8)[:, None, None, None]
    masks = np.zeros((2, side, side, 1), np.float32)
    masks[0, 40:60, 20:30] = masks[1, 40:60, 70:80] = 1
    return images, masks


def with_partners(*partners: int) -> Drawn:
    drawn = draw(np.random.default_rng(1), slices=len(partners), side=100, settings=OFF)
    return drawn._replace(partners=np.array(partners, np.int32))


def test_a_pasted_tumour_brings_its_pixels_and_its_mask_and_leaves_the_rest():
    images, masks = pair()
    new_images, new_masks = applied(images, masks, with_partners(1, 1))
    assert np.array_equal(new_masks[0], np.maximum(masks[0], masks[1]))
    assert (new_images[0][masks[1, ..., 0] == 1] == 200).all()
    assert (new_images[0][:, :60] == 50).all()  # the own tumour too
    assert np.array_equal(new_images[1], images[1])
    assert np.array_equal(new_masks[1], masks[1])


def test_what_surrounds_a_pasted_tumour_comes_along_and_fades():
    images, masks = pair()
    new_images, _ = applied(images, masks, with_partners(1, 1))
    across = new_images[0, 50, 60:71, 0].astype(int)  # up to the tumour's left edge at 70
    assert across[-1] == 200 and across[0] == 50
    assert (np.diff(across) >= 0).all() and np.diff(across).max() < 60


def test_an_own_tumour_under_a_pasted_one_and_its_rim_fades_in_the_mask_as_in_the_image():
    images, masks = pair()
    masks[0], masks[0, 45:50, 66:71] = 0, 1  # up to the other tumour, and a pixel into it
    new_images, new_masks = applied(images, masks, with_partners(1, 1))
    assert new_masks[0, 47, 70, 0] == 1
    left = new_masks[0, 47, 66:70, 0]
    assert np.allclose(left, (200 - new_images[0, 47, 66:70, 0].astype(int)) / 150, atol=0.01)
    assert (np.diff(left) < 0).all() and left[-1] < 0.2


def test_a_partner_without_tumour_and_the_slice_itself_change_nothing():
    images, masks = pair()
    masks[1] = 0
    for partners in ((1, 0), (0, 1)):
        new_images, new_masks = applied(images, masks, with_partners(*partners))
        assert np.array_equal(new_images[0], images[0])
        assert np.array_equal(new_masks[0], masks[0])


def test_about_the_asked_share_of_slices_gets_a_partner_and_all_else_is_drawn_as_before():
    settings = replace(FULL, missing=0.3)
    plain, pasting = (
        draw(np.random.default_rng(1), slices=1000, side=8, settings=one)
        for one in (settings, replace(settings, paste=0.4))
    )
    assert plain.partners is None
    assert np.mean(pasting.partners != np.arange(1000)) == pytest.approx(0.4, abs=0.05)
    assert pasting.partners.min() >= 0 and pasting.partners.max() < 1000
    for name in ("transforms", "gains", "sources"):
        assert np.array_equal(getattr(plain, name), getattr(pasting, name))
