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


def test_a_bright_scalp_has_no_say():
    images = head(60, 10)
    ringed = images.copy()
    ringed[:, 12:15, 12:52] = ringed[:, 49:52, 12:52] = 250  # its upper and lower rim
    plain, scale = intensity.of_scan(images), intensity.of_scan(ringed)
    assert np.array_equal(scale.gain, plain.gain)
    assert np.array_equal(scale.offset, plain.offset)


def test_inside_is_what_lies_a_tenth_of_the_side_within_the_head():
    found = intensity.inside(head(100, 5))
    rows, columns = np.nonzero(found[0])
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (18, 45)
    assert not found[:, :18].any()


def test_black_ventricles_are_inside_all_the_same():
    images = head(100, 5)
    images[:, 28:36, 28:36] = 0
    assert intensity.inside(images)[:, 28:36, 28:36].all()


@pytest.mark.parametrize("rows", [0, 6])
def test_a_scan_without_an_inside_has_a_scale_all_the_same(rows):
    images = head(100, 5)
    images[:, 20 + rows :] = images[:, :20] = 0
    assert not intensity.inside(images).any()
    scale = intensity.of_scan(images)
    assert np.isfinite([scale.gain, scale.offset]).all()


def test_large_slices_are_looked_at_in_part():
    images = head(60, 10).repeat(4, axis=1).repeat(4, axis=2)
    small, large = intensity.of_scan(head(60, 10)), intensity.of_scan(images)
    assert large.gain == pytest.approx(small.gain, rel=1e-6)


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
