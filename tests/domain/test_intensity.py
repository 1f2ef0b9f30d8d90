import numpy as np
import pytest

from pipeline.domain import intensity


def head(level: float, spread: float, *, seed: int = 0) -> np.ndarray:
    """Two slices with a square head of that brightness on black; (2, 64, 64, 3) uint8."""
    images = np.zeros((2, 64, 64, 3))
    images[:, 12:52, 12:52] = np.random.default_rng(seed).normal(level, spread, (2, 40, 40, 3))
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def middle(images: np.ndarray) -> np.ndarray:
    """The pixels of the head."""
    return images[:, 12:52, 12:52].astype(float)


@pytest.mark.parametrize(("level", "spread"), [(30, 5), (120, 20), (180, 15)])
def test_every_head_gets_the_target_mean_and_deviation(level, spread):
    images = head(level, spread)
    scaled = middle(intensity.apply_scale(images, intensity.estimate_scale(images)))
    assert scaled.mean(axis=(0, 1, 2)) == pytest.approx([intensity.TARGET_MEAN] * 3, abs=2)
    assert scaled.std(axis=(0, 1, 2)) == pytest.approx([intensity.TARGET_STD] * 3, rel=0.06)


def test_a_bright_scalp_does_not_change_the_scale():
    images = head(60, 10)
    with_scalp = images.copy()
    with_scalp[:, 12:15, 12:52] = with_scalp[:, 49:52, 12:52] = 250  # top and bottom of the head
    plain, scale = intensity.estimate_scale(images), intensity.estimate_scale(with_scalp)
    assert np.array_equal(scale.gain, plain.gain)
    assert np.array_equal(scale.offset, plain.offset)


def test_the_brain_region_begins_a_tenth_of_the_side_inside_the_head():
    region = intensity.brain_region(head(100, 5))
    rows, columns = np.nonzero(region[0])
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (18, 45)  # 12 + 6, 51 - 6
    assert not region[:, :18].any()


def test_dark_ventricles_belong_to_the_brain_region():
    images = head(100, 5)
    images[:, 28:36, 28:36] = 0
    assert intensity.brain_region(images)[:, 28:36, 28:36].all()


@pytest.mark.parametrize("rows", [0, 6])
def test_a_scan_without_a_brain_region_has_a_finite_scale(rows):
    images = head(100, 5)
    images[:, 20 + rows :] = images[:, :20] = 0
    assert not intensity.brain_region(images).any()
    scale = intensity.estimate_scale(images)
    assert np.isfinite([scale.gain, scale.offset]).all()


def test_the_scale_of_large_slices_is_estimated_from_a_sample():
    images = head(60, 10).repeat(4, axis=1).repeat(4, axis=2)
    small, large = intensity.estimate_scale(head(60, 10)), intensity.estimate_scale(images)
    assert large.gain == pytest.approx(small.gain, rel=1e-6)


def test_each_sequence_has_a_separate_scale():
    images = head(60, 10)
    images[..., 1] = head(150, 30, seed=1)[..., 1]
    scale = intensity.estimate_scale(images)
    assert scale.gain[0] == pytest.approx(4, rel=0.05)
    assert scale.gain[1] == pytest.approx(4 / 3, rel=0.05)


def test_a_scan_of_twice_the_brightness_is_scaled_to_the_same_values():
    images, brighter = head(60, 8), head(60, 8) * 2
    scaled = intensity.apply_scale(images, intensity.estimate_scale(images))
    scaled_brighter = intensity.apply_scale(brighter, intensity.estimate_scale(brighter))
    assert np.abs(scaled.astype(int) - scaled_brighter.astype(int)).max() <= 1


def test_bright_pixels_stay_bright():
    images = head(100, 20)
    images[0, 30:34, 30:34] = 200
    scaled = intensity.apply_scale(images, intensity.estimate_scale(images))
    assert (scaled[0, 30:34, 30:34] > np.median(middle(scaled))).all()


@pytest.mark.parametrize("value", [0, 90])
def test_a_uniform_sequence_stays_unchanged(value):
    images = head(100, 20)
    images[..., 2] = value
    scaled = intensity.apply_scale(images, intensity.estimate_scale(images))
    assert (scaled[..., 2] == value).all()


def test_slices_are_scaled_by_their_scan_and_not_one_by_one():
    images = head(100, 20)
    images[1] //= 2
    scale = intensity.estimate_scale(images)
    scaled = intensity.apply_scale(images, scale)
    assert np.array_equal(intensity.apply_scale(images[1], scale), scaled[1])
    assert middle(scaled[:1]).mean() > middle(scaled[1:]).mean() + 20


def test_a_model_gets_the_scale_that_its_name_stands_for():
    scan = head(100, 20)
    scaled = intensity.apply_scale(scan[1:], intensity.estimate_scale(scan))
    assert np.array_equal(intensity.scale_for_model("resunet", scan[1:], scan), scan[1:])
    assert np.array_equal(
        intensity.scale_for_model("resunet_for_scaled_scans", scan[1:], scan), scaled
    )
