import numpy as np
import pytest

from pipeline.domain import intensity


def head(level: float, spread: float, *, seed: int = 0) -> np.ndarray:
    """Two slices whose middle is a head of that brightness, black around it; (2, 64, 64, 3)."""
    images = np.zeros((2, 64, 64, 3))
    inside = np.random.default_rng(seed).normal(level, spread, (2, 40, 40, 3))
    images[:, 12:52, 12:52] = inside
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def middle(images: np.ndarray) -> np.ndarray:
    return images[:, 12:52, 12:52].astype(float)


@pytest.mark.parametrize(("level", "spread"), [(30, 5), (120, 20), (180, 15)])
def test_every_head_gets_the_same_mean_and_spread(level, spread):
    images = head(level, spread)
    found = middle(intensity.apply(images, intensity.of_scan(images)))
    assert found.mean(axis=(0, 1, 2)) == pytest.approx([intensity.MEAN] * 3, abs=2)
    assert found.std(axis=(0, 1, 2)) == pytest.approx([intensity.SPREAD] * 3, rel=0.06)


def test_sequences_are_scaled_apart():
    images = head(60, 10)
    images[..., 1] = head(150, 30, seed=1)[..., 1]
    scale = intensity.of_scan(images)
    assert scale.gain[0] == pytest.approx(4, rel=0.05)
    assert scale.gain[1] == pytest.approx(4 / 3, rel=0.05)


def test_a_scan_that_is_twice_as_bright_comes_out_the_same():
    images = head(60, 8)
    both = [intensity.apply(one, intensity.of_scan(one)) for one in (images, images * 2)]
    assert np.abs(both[0].astype(int) - both[1].astype(int)).max() <= 1


def test_brighter_stays_brighter():
    images = head(100, 20)
    images[0, 30:34, 30:34] = 200
    found = intensity.apply(images, intensity.of_scan(images))
    assert (found[0, 30:34, 30:34] > np.median(middle(found))).all()


@pytest.mark.parametrize("value", [0, 90])
def test_a_sequence_without_contrast_is_left_as_it_is(value):
    images = head(100, 20)
    images[..., 2] = value
    found = intensity.apply(images, intensity.of_scan(images))
    assert (found[..., 2] == value).all()


def test_a_slice_is_scaled_by_its_scan_and_not_by_itself():
    images = head(100, 20)
    images[1] //= 2
    scale = intensity.of_scan(images)
    whole = intensity.apply(images, scale)
    assert np.array_equal(intensity.apply(images[1], scale), whole[1])
    assert middle(whole[:1]).mean() > middle(whole[1:]).mean() + 20
