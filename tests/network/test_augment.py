from dataclasses import replace

import numpy as np
import pytest
from keras import ops

from pipeline.network.augment import Augmentation, Sampled, apply, sample, stack

OFF = Augmentation(flip=0, rotate_degrees=0, scale=0, shift=0, intensity=0)
FULL = Augmentation(flip=0.5, rotate_degrees=30, scale=0.2, shift=0.1, intensity=0.3)
SIDE = 8


class Highest:
    """A generator that samples the upper end of every range, and mirrors if it may."""

    def uniform(self, low, high, size):
        return np.full(size, high, np.float64)

    def random(self, size):
        return np.zeros(size)


class Lowest(Highest):
    """The same with the lower end of every range."""

    def uniform(self, low, high, size):
        return np.full(size, low, np.float64)


def noise(slices: int = 3, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Return random images and masks; a pixel of a mask is 0, 0.5 or 1."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (slices, side, side, 3), dtype=np.uint8)
    return images, (rng.integers(0, 3, (slices, side, side, 1)) / 2).astype(np.float32)


def square(rows: slice, columns: slice, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Return one slice that is white where its mask is tumour, and black elsewhere."""
    mask = np.zeros((1, side, side, 1), np.float32)
    mask[:, rows, columns] = 1
    return np.repeat(mask * 255, 3, axis=-1).astype(np.uint8), mask


def augmented(images, masks, augmentation, rng=None) -> tuple[np.ndarray, np.ndarray]:
    """Sample parameters and apply them."""
    rng = rng or np.random.default_rng(5)
    slices, side = images.shape[:2]
    sampled = sample(rng, slices=slices, side=side, settings=augmentation)
    return applied(images, masks, sampled)


def applied(images, masks, sampled: Sampled) -> tuple[np.ndarray, np.ndarray]:
    images, masks = apply(images, masks, sampled)
    return ops.convert_to_numpy(images), ops.convert_to_numpy(masks)


def test_augmentation_that_is_off_changes_nothing():
    images, masks = noise()
    new_images, new_masks = augmented(images, masks, OFF)
    assert np.array_equal(new_images, images)
    assert np.array_equal(new_masks, masks)


@pytest.mark.parametrize("side", [7, 8])
def test_flip_1_mirrors_every_slice_left_to_right_exactly(side):
    images, masks = noise(side=side)
    new_images, new_masks = augmented(images, masks, replace(OFF, flip=1))
    assert np.array_equal(new_images, images[:, :, ::-1])
    assert np.array_equal(new_masks, masks[:, :, ::-1])


def test_flip_one_half_mirrors_about_every_second_slice():
    sampled = sample(
        np.random.default_rng(1), slices=1000, side=SIDE, settings=replace(OFF, flip=0.5)
    )
    assert np.mean(sampled.transforms[:, 0] == -1) == pytest.approx(0.5, abs=0.05)
    assert set(sampled.transforms[:, 0]) == {-1, 1}


@pytest.mark.parametrize("seed", range(4))
def test_masks_move_with_images(seed):
    images, masks = square(slice(5, 11), slice(3, 8), side=16)
    augmentation = replace(FULL, intensity=0)
    new_images, new_masks = augmented(images, masks, augmentation, np.random.default_rng(seed))
    assert not np.array_equal(new_masks, masks)
    assert new_masks.sum() > 0
    for channel in range(3):
        assert np.allclose(new_images[..., channel], new_masks[..., 0] * 255, atol=0.51)


def test_slices_of_a_batch_are_augmented_independently():
    images, masks = square(slice(5, 11), slice(3, 8), side=16)
    images, masks = np.repeat(images, 4, axis=0), np.repeat(masks, 4, axis=0)
    new_images, _ = augmented(images, masks, FULL)
    assert len({image.tobytes() for image in new_images}) == 4


def test_the_largest_shift_moves_a_square_by_its_share_of_the_side_and_black_moves_in():
    # A quarter of 8 px: every pixel comes from 2 px further right and further down.
    images, masks = square(slice(4, 6), slice(3, 7))
    images[:, 0] = 255
    new_images, new_masks = augmented(images, masks, replace(OFF, shift=0.25), Highest())
    expected_images, expected_masks = square(slice(2, 4), slice(1, 5))
    assert np.array_equal(new_masks, expected_masks)
    assert np.array_equal(new_images, expected_images)


def test_a_rotation_by_90_degrees_is_about_the_middle_of_the_slice():
    images, masks = square(slice(0, 3), slice(1, 3))
    new_images, new_masks = augmented(images, masks, replace(OFF, rotate_degrees=90), Highest())
    assert np.allclose(new_masks, np.rot90(masks, axes=(1, 2)), atol=1e-5)
    assert np.array_equal(new_images, np.rot90(images, axes=(1, 2)))


def test_rotations_by_90_degrees_either_way_differ_by_180_degrees():
    images, masks = square(slice(0, 3), slice(1, 3))
    _, right = augmented(images, masks, replace(OFF, rotate_degrees=90), Highest())
    _, left = augmented(images, masks, replace(OFF, rotate_degrees=90), Lowest())
    assert np.allclose(right, np.rot90(left, 2, axes=(1, 2)), atol=1e-5)


@pytest.mark.parametrize(("rng", "factor"), [(Highest(), 1.25**2), (Lowest(), 0.75**2)])
def test_scale_enlarges_or_shrinks_a_square_by_that_share_along_each_side(rng, factor):
    _, masks = square(slice(10, 22), slice(10, 22), side=32)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    _, new_masks = augmented(images, masks, replace(OFF, scale=0.25), rng)
    assert new_masks.sum() == pytest.approx(144 * factor, rel=0.03)


@pytest.mark.parametrize(
    ("rng", "expected"),
    [(Highest(), [0, 15, 150, 255, 255]), (Lowest(), [0, 5, 50, 100, 128])],
)
def test_intensity_brightens_or_darkens_and_stays_within_0_to_255(rng, expected):
    images = np.zeros((1, 5, 5, 3), np.uint8)
    images[0, 0] = np.array([0, 10, 100, 200, 255])[:, None]  # 127.5 is rounded to the even 128
    _, masks = square(slice(0, 2), slice(0, 2), side=5)
    new_images, new_masks = augmented(images, masks, replace(OFF, intensity=0.5), rng)
    assert new_images[0, 0].tolist() == [[value] * 3 for value in expected]
    assert np.array_equal(new_masks, masks)


def test_a_random_intensity_never_wraps_around():
    images = np.full((50, 2, 2, 3), 250, np.uint8)
    masks = np.zeros((50, 2, 2, 1), np.float32)
    new_images, _ = augmented(images, masks, replace(OFF, intensity=0.9))
    assert new_images.min() >= 24  # 250 * 0.1, less rounding; a value that wraps would be near 0
    assert (new_images == 255).mean() == pytest.approx(0.5, abs=0.15)  # clipped


def test_each_sequence_of_each_slice_has_a_different_gain():
    sampled = sample(
        np.random.default_rng(1), slices=4, side=SIDE, settings=replace(OFF, intensity=0.3)
    )
    assert sampled.gains.shape == (4, 1, 1, 3)
    assert len(set(sampled.gains.ravel())) == 12
    assert sampled.gains.min() >= 0.7 and sampled.gains.max() <= 1.3


def test_the_same_seed_gives_the_same_result():
    images, masks = noise()
    first, again = (augmented(images, masks, FULL, np.random.default_rng(7)) for _ in "ab")
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_another_seed_gives_another_result():
    images, masks = noise()
    first, second = (augmented(images, masks, FULL, np.random.default_rng(s)) for s in (7, 8))
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize("augmentation", [OFF, FULL], ids=["off", "full"])
@pytest.mark.parametrize(("slices", "side"), [(1, 16), (5, 9)])
def test_types_and_shapes_stay_the_same(augmentation, slices, side):
    images, masks = noise(slices, side)
    new_images, new_masks = augmented(images, masks, augmentation)
    assert (new_images.dtype, new_images.shape) == (np.uint8, (slices, side, side, 3))
    assert (new_masks.dtype, new_masks.shape) == (np.float32, (slices, side, side, 1))


def test_masks_stay_within_0_to_1():
    _, masks = augmented(*noise(slices=20), FULL)
    assert masks.min() >= 0 and masks.max() <= 1


def test_inputs_are_not_changed_in_place():
    images, masks = noise()
    before = images.copy(), masks.copy()
    augmented(images, masks, FULL)
    assert np.array_equal(images, before[0])
    assert np.array_equal(masks, before[1])


@pytest.mark.parametrize(
    "change", ["flip", "rotate_degrees", "scale", "shift", "intensity", "missing", "paste"]
)
def test_any_single_change_turns_augmentation_on(change):
    assert OFF.is_off
    assert not replace(OFF, **{change: 0.1}).is_off


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ("flip", False),
        ("intensity", False),
        ("rotate_degrees", True),
        ("scale", True),
        ("shift", True),
    ],
)
def test_rotation_scale_and_shift_move_pixels(change, moves):
    assert replace(OFF, **{change: 0.1}).moves is moves


def test_a_missing_sequence_is_replaced_by_flair_as_in_the_data_set():
    augmentation = replace(OFF, missing=0.5)
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    masks = np.zeros((200, 8, 8, 1), np.float32)
    sampled = sample(np.random.default_rng(1), slices=200, side=8, settings=augmentation)
    new_images, _ = applied(images, masks, sampled)
    pre, flair, post = (images[..., channel] for channel in range(3))
    possible = {"none": (pre, flair, post), "post": (pre, flair, flair), "both": (flair,) * 3}
    missing = []
    for number in range(200):
        for name, channels in possible.items():
            expected = np.stack([channel[number] for channel in channels], axis=-1)
            if np.array_equal(new_images[number], expected):
                missing.append(name)
    assert len(missing) == 200
    assert missing.count("none") / 200 == pytest.approx(0.5, abs=0.1)
    assert missing.count("both") / 200 == pytest.approx(0.25, abs=0.1)


def test_turning_missing_on_leaves_all_other_parameters_the_same():
    augmentation = Augmentation(flip=0.5, rotate_degrees=9, scale=0.1, shift=0.1, intensity=0.2)
    without, with_missing = (
        sample(np.random.default_rng(1), slices=6, side=8, settings=settings)
        for settings in (augmentation, replace(augmentation, missing=0.3))
    )
    assert without.sources is None
    assert np.array_equal(without.transforms, with_missing.transforms)
    assert np.array_equal(without.gains, with_missing.gains)


def test_parameters_of_several_steps_are_stacked_and_taken_apart_again():
    rng = np.random.default_rng(1)
    first, second, third = (
        sample(rng, slices=3, side=8, settings=replace(FULL, paste=0.5)) for _ in range(3)
    )
    stacked = stack([first, second, third])
    assert stacked.transforms.shape == (3, 3, 8)
    assert stacked.sources is None
    assert np.array_equal(stacked.at(1).gains, second.gains)
    last_two = stacked.at(slice(1, 3))
    assert np.array_equal(last_two.partners, [second.partners, third.partners])
    assert last_two.sources is None


def pair(side: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Return two slices of brightness 50 and 200, with a tumour on the left and on the right."""
    images = np.empty((2, side, side, 3), np.uint8)
    images[:] = np.array([50, 200], np.uint8)[:, None, None, None]
    masks = np.zeros((2, side, side, 1), np.float32)
    masks[0, 40:60, 20:30] = masks[1, 40:60, 70:80] = 1
    return images, masks


def with_partners(*partners: int) -> Sampled:
    """Return parameters that only paste the tumours of these partners."""
    sampled = sample(np.random.default_rng(1), slices=len(partners), side=100, settings=OFF)
    return sampled._replace(partners=np.array(partners, np.int32))


def test_a_pasted_tumour_comes_with_its_pixels_and_mask_and_the_rest_stays():
    images, masks = pair()
    new_images, new_masks = applied(images, masks, with_partners(1, 1))
    assert np.array_equal(new_masks[0], np.maximum(masks[0], masks[1]))
    assert (new_images[0][masks[1, ..., 0] == 1] == 200).all()
    assert (new_images[0][:, :60] == 50).all()  # its first tumour too
    assert np.array_equal(new_images[1], images[1])
    assert np.array_equal(new_masks[1], masks[1])


def test_the_surroundings_of_a_pasted_tumour_come_along_and_fade_out():
    images, masks = pair()
    new_images, _ = applied(images, masks, with_partners(1, 1))
    across = new_images[0, 50, 60:71, 0].astype(int)  # up to the tumour's left edge at 70
    assert across[-1] == 200 and across[0] == 50
    assert (np.diff(across) >= 0).all() and np.diff(across).max() < 60


def test_a_tumour_under_a_pasted_one_and_its_rim_fades_in_the_mask_as_in_the_image():
    images, masks = pair()
    masks[0], masks[0, 45:50, 66:71] = 0, 1  # up to the other tumour, and a pixel into it
    new_images, new_masks = applied(images, masks, with_partners(1, 1))
    assert new_masks[0, 47, 70, 0] == 1
    share = new_masks[0, 47, 66:70, 0]
    assert np.allclose(share, (200 - new_images[0, 47, 66:70, 0].astype(int)) / 150, atol=0.01)
    assert (np.diff(share) < 0).all() and share[-1] < 0.2


def test_a_partner_without_tumour_changes_nothing_and_neither_does_the_slice_itself():
    images, masks = pair()
    masks[1] = 0
    for partners in ((1, 0), (0, 1)):
        new_images, new_masks = applied(images, masks, with_partners(*partners))
        assert np.array_equal(new_images[0], images[0])
        assert np.array_equal(new_masks[0], masks[0])


def test_turning_paste_on_gives_its_share_of_slices_a_partner_and_leaves_the_rest_the_same():
    augmentation = replace(FULL, missing=0.3)
    without, pasting = (
        sample(np.random.default_rng(1), slices=1000, side=8, settings=settings)
        for settings in (augmentation, replace(augmentation, paste=0.4))
    )
    assert without.partners is None
    assert np.mean(pasting.partners != np.arange(1000)) == pytest.approx(0.4, abs=0.05)
    assert pasting.partners.min() >= 0 and pasting.partners.max() < 1000
    for name in ("transforms", "gains", "sources"):
        assert np.array_equal(getattr(without, name), getattr(pasting, name))
