import numpy as np
import pytest
import tensorflow as tf

from pipeline.network.losses import FocalTversky, focal_tversky, tversky_index

FLOOR = 1e-6


def batch(*slices: list[float]) -> tf.Tensor:
    """Slices of four pixels: (B, 2, 2, 1)."""
    return tf.reshape(tf.constant(slices, tf.float32), (-1, 2, 2, 1))


EMPTY = batch([0, 0, 0, 0])
FULL = batch([1, 1, 1, 1])
TRUTH = batch([1, 1, 1, 0])


def index(y_true, y_pred, missed_weight=0.7, **settings) -> float:
    return float(tversky_index(y_true, y_pred, missed_weight=missed_weight, **settings))


def loss(y_true, y_pred, missed_weight=0.7, exponent=0.75) -> float:
    return float(focal_tversky(y_true, y_pred, missed_weight=missed_weight, exponent=exponent))


def loss_and_slope(y_true, y_pred) -> tuple[float, np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        found = focal_tversky(y_true, y_pred, missed_weight=0.7, exponent=0.75)
    return float(found), tape.gradient(found, y_pred).numpy().ravel()


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        (batch([1, 1, 0, 0]), batch([1, 0, 1, 0]), 2 / 3),  # (1 + 1) / (1 + 0.7 + 0.3 + 1)
        (batch([1, 1, 0, 0]), batch([0.5, 0.5, 0.5, 0.5]), 2 / 3),  # 1 hit, 1 missed, 1 invented
        (TRUTH, batch([1, 1, 0, 0]), 3 / 3.7),  # 2 hit, 1 missed
        (batch([1, 1, 0, 0]), TRUTH, 3 / 3.3),  # 2 hit, 1 invented
        (TRUTH, TRUTH, 1.0),
        (FULL, FULL, 1.0),
        (EMPTY, EMPTY, 1.0),
        (FULL, EMPTY, 1 / 3.8),  # 1 / (0.7 * 4 + 1)
        (EMPTY, FULL, 1 / 2.2),  # 1 / (0.3 * 4 + 1)
        (TRUTH, batch([0, 0, 0, 1]), 1 / 3.4),  # disjoint: 1 / (0.7 * 3 + 0.3 + 1)
    ],
)
def test_index_of_four_pixels(y_true, y_pred, expected):
    assert index(y_true, y_pred) == pytest.approx(expected)


def test_index_takes_all_slices_as_one_sum():
    y_true, y_pred = batch([1, 1, 0, 0], [0, 0, 0, 0]), batch([1, 1, 0, 0], [1, 0, 0, 0])
    assert index(y_true, y_pred) == pytest.approx(3 / 3.3)  # 2 hit, 1 invented in the other


def test_index_of_each_slice_by_itself():
    y_true, y_pred = batch([1, 1, 0, 0], [0, 0, 0, 0]), batch([1, 1, 0, 0], [1, 0, 0, 0])
    found = tversky_index(y_true, y_pred, missed_weight=0.7, axis=(1, 2, 3))
    assert found.numpy() == pytest.approx([1, 1 / 1.3])  # all hit; 1 invented


def test_index_takes_truth_of_any_type():
    y_pred = batch([1, 1, 0, 0])
    for dtype in (tf.uint8, tf.int32, tf.bool, tf.float64):
        assert index(tf.cast(TRUTH, dtype), y_pred) == pytest.approx(3 / 3.7)


def test_index_without_smoothing_to_speak_of_is_the_plain_ratio():
    found = index(TRUTH, batch([1, 1, 0, 0]), smoothing=1e-6)
    assert found == pytest.approx(2 / 2.7, abs=1e-5)


def test_at_one_half_missed_and_invented_pixels_cost_the_same():
    two_of_two = batch([1, 1, 0, 0])
    assert index(TRUTH, two_of_two, 0.5) == pytest.approx(3 / 3.5)  # 2 hit, 1 missed
    assert index(two_of_two, TRUTH, 0.5) == pytest.approx(3 / 3.5)  # 2 hit, 1 invented


def test_a_missed_pixel_scores_lower_than_an_invented_one():
    two_of_two = batch([1, 1, 0, 0])
    missed = index(TRUTH, two_of_two)  # 3 / (3 + 0.7)
    invented = index(two_of_two, TRUTH)  # 3 / (3 + 0.3)
    assert missed < invented
    assert 3 / missed - 3 == pytest.approx(0.7, abs=1e-5)
    assert 3 / invented - 3 == pytest.approx(0.3, abs=1e-5)
    assert loss(TRUTH, two_of_two) > loss(two_of_two, TRUTH)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "exponent", "expected"),
    [
        (batch([1, 1, 0, 0]), batch([1, 0, 1, 0]), 0.75, (1 / 3) ** 0.75),
        (batch([1, 1, 0, 0]), batch([1, 0, 1, 0]), 1.0, 1 / 3),
        (batch([1, 1, 0, 0]), batch([1, 0, 1, 0]), 2.0, 1 / 9),
        (FULL, EMPTY, 0.75, (2.8 / 3.8) ** 0.75),
        (TRUTH, TRUTH, 0.75, FLOOR**0.75),
        (EMPTY, EMPTY, 0.75, FLOOR**0.75),
    ],
)
def test_loss_of_four_pixels(y_true, y_pred, exponent, expected):
    assert loss(y_true, y_pred, exponent=exponent) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("exponent", [0.5, 0.75, 1.0, 2.0])
def test_loss_stays_in_its_range(exponent):
    generator = np.random.default_rng(1)
    for share in (0.0, 0.1, 0.5, 1.0):
        y_true = tf.constant(generator.random((3, 4, 4, 1)) < share, tf.float32)
        for y_pred in (generator.random((3, 4, 4, 1)), y_true, 1 - y_true):
            found = loss(y_true, tf.cast(y_pred, tf.float32), exponent=exponent)
            assert FLOOR**exponent * (1 - 1e-5) <= found <= 1


@pytest.mark.parametrize("y", [TRUTH, FULL, EMPTY], ids=["some tumour", "all tumour", "no tumour"])
def test_a_perfect_batch_has_a_finite_loss_and_no_slope(y):
    found, slope = loss_and_slope(y, y)
    assert np.isfinite(found)
    assert slope.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("y_true", "y_pred"),
    [(TRUTH, 1 - TRUTH), (FULL, EMPTY), (EMPTY, FULL)],
    ids=["disjoint", "all missed", "all invented"],
)
def test_an_all_wrong_batch_has_a_finite_slope_that_points_to_the_truth(y_true, y_pred):
    found, slope = loss_and_slope(y_true, y_pred)
    tumour = y_true.numpy().ravel() == 1
    assert np.isfinite(found) and np.isfinite(slope).all()
    assert (slope[tumour] < 0).all()
    assert (slope[~tumour] > 0).all()


@pytest.mark.parametrize("y", [TRUTH, EMPTY], ids=["some tumour", "no tumour"])
@pytest.mark.parametrize("off", [1e-7, 1e-5, 1e-3])
def test_a_nearly_perfect_batch_has_a_finite_slope(y, off):
    _, slope = loss_and_slope(y, tf.abs(y - off))
    assert np.isfinite(slope).all()


def test_slope_at_a_hand_worked_point():
    # One tumour pixel, p of it found, w = 1: TI = (p + 1) / (p + (1 - p) + 1) = (p + 1) / 2,
    # so that 1 - TI falls by 1/2 for each whole p.
    y_true, y_pred = batch([1, 0, 0, 0]), batch([0.25, 0, 0, 0])
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        found = focal_tversky(y_true, y_pred, missed_weight=1.0, exponent=1.0)
    assert float(found) == pytest.approx(1 - 1.25 / 2)
    assert tape.gradient(found, y_pred).numpy().ravel()[0] == pytest.approx(-0.5)


def test_the_keras_loss_gives_the_value_of_the_function():
    y_pred = batch([1, 1, 0, 0])
    found = FocalTversky(missed_weight=0.7, exponent=0.75)(TRUTH, y_pred)
    assert found.shape == ()
    assert float(found) == pytest.approx((0.7 / 3.7) ** 0.75)


SLICES = batch([1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0])


def by_slice(share: float, y_pred) -> float:
    return float(focal_tversky(SLICES, y_pred, missed_weight=0.7, exponent=1, by_slice=share))


def test_by_slice_is_the_mean_over_slices_with_tumour():
    # 4 hit: no loss; 1 missed of 1: 1 - 10 / 10.7; the third has no tumour and does not count.
    y_pred = batch([1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0])
    assert by_slice(1, y_pred) == pytest.approx((1 - 10 / 10.7) / 2, rel=1e-4)


def test_by_slice_a_small_tumour_counts_as_much_as_a_large_one_that_is_missed_by_as_much():
    small = batch([1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0])
    large = batch([0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0])
    assert by_slice(0, small) == pytest.approx(by_slice(0, large))  # as one sum: a pixel is a pixel
    assert by_slice(1, small) > 1.2 * by_slice(1, large)


def test_by_slice_is_mixed_with_the_loss_of_the_batch():
    y_pred = batch([1, 1, 0, 0.5], [0.5, 0, 0, 0], [0, 0.3, 0, 0])
    whole, each = by_slice(0, y_pred), by_slice(1, y_pred)
    assert by_slice(0.25, y_pred) == pytest.approx(0.75 * whole + 0.25 * each)
    assert abs(whole - each) > 0.05


@pytest.mark.parametrize("y_pred", [EMPTY, FULL])
def test_by_slice_without_any_tumour_is_the_batch_alone_and_its_slope_finite(y_pred):
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        found = focal_tversky(EMPTY, y_pred, missed_weight=0.7, exponent=0.75, by_slice=0.5)
    assert float(found) == pytest.approx(0.5 * loss(EMPTY, y_pred))
    assert np.isfinite(tape.gradient(found, y_pred)).all()
