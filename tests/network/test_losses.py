import numpy as np
import pytest
import tensorflow as tf

from pipeline.network.losses import FocalTversky, focal_tversky, tversky_index

FLOOR = 1e-6


def batch(*slices: list[float]) -> tf.Tensor:
    """Return slices of four pixels each, (B, 2, 2, 1)."""
    return tf.reshape(tf.constant(slices, tf.float32), (-1, 2, 2, 1))


EMPTY = batch([0, 0, 0, 0])
FULL = batch([1, 1, 1, 1])
TRUTH = batch([1, 1, 1, 0])


def index(y_true, y_pred, missed_weight=0.7, **options) -> float:
    return float(tversky_index(y_true, y_pred, missed_weight=missed_weight, **options))


def loss(y_true, y_pred, missed_weight=0.7, exponent=0.75) -> float:
    return float(focal_tversky(y_true, y_pred, missed_weight=missed_weight, exponent=exponent))


def loss_and_slope(y_true, y_pred) -> tuple[float, np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = focal_tversky(y_true, y_pred, missed_weight=0.7, exponent=0.75)
    return float(value), tape.gradient(value, y_pred).numpy().ravel()


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        (batch([1, 1, 0, 0]), batch([1, 0, 1, 0]), 2 / 3),  # (1 + 1) / (1 + 0.7 + 0.3 + 1)
        (batch([1, 1, 0, 0]), batch([0.5, 0.5, 0.5, 0.5]), 2 / 3),  # TP, FN and FP 1 each
        (TRUTH, batch([1, 1, 0, 0]), 3 / 3.7),  # TP 2, FN 1
        (batch([1, 1, 0, 0]), TRUTH, 3 / 3.3),  # TP 2, FP 1
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
    assert index(y_true, y_pred) == pytest.approx(3 / 3.3)  # TP 2; FP 1 in the second


def test_index_of_each_slice_by_itself():
    y_true, y_pred = batch([1, 1, 0, 0], [0, 0, 0, 0]), batch([1, 1, 0, 0], [1, 0, 0, 0])
    values = tversky_index(y_true, y_pred, missed_weight=0.7, axis=(1, 2, 3))
    assert values.numpy() == pytest.approx([1, 1 / 1.3])  # perfect; FP 1


def test_index_takes_truth_of_any_type():
    y_pred = batch([1, 1, 0, 0])
    for dtype in (tf.uint8, tf.int32, tf.bool, tf.float64):
        assert index(tf.cast(TRUTH, dtype), y_pred) == pytest.approx(3 / 3.7)


def test_index_with_hardly_any_smoothing_is_the_plain_ratio():
    value = index(TRUTH, batch([1, 1, 0, 0]), smoothing=1e-6)
    assert value == pytest.approx(2 / 2.7, abs=1e-5)


def test_at_a_missed_weight_of_one_half_false_negatives_and_false_positives_cost_the_same():
    two_pixels = batch([1, 1, 0, 0])
    assert index(TRUTH, two_pixels, 0.5) == pytest.approx(3 / 3.5)  # TP 2, FN 1
    assert index(two_pixels, TRUTH, 0.5) == pytest.approx(3 / 3.5)  # TP 2, FP 1


def test_a_false_negative_costs_more_than_a_false_positive():
    two_pixels = batch([1, 1, 0, 0])
    with_false_negative = index(TRUTH, two_pixels)  # 3 / (3 + 0.7)
    with_false_positive = index(two_pixels, TRUTH)  # 3 / (3 + 0.3)
    assert with_false_negative < with_false_positive
    assert 3 / with_false_negative - 3 == pytest.approx(0.7, abs=1e-5)
    assert 3 / with_false_positive - 3 == pytest.approx(0.3, abs=1e-5)
    assert loss(TRUTH, two_pixels) > loss(two_pixels, TRUTH)


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
    rng = np.random.default_rng(1)
    for share in (0.0, 0.1, 0.5, 1.0):
        y_true = tf.constant(rng.random((3, 4, 4, 1)) < share, tf.float32)
        for y_pred in (rng.random((3, 4, 4, 1)), y_true, 1 - y_true):
            value = loss(y_true, tf.cast(y_pred, tf.float32), exponent=exponent)
            assert FLOOR**exponent * (1 - 1e-5) <= value <= 1


@pytest.mark.parametrize("y", [TRUTH, FULL, EMPTY], ids=["some tumour", "all tumour", "no tumour"])
def test_a_perfect_batch_has_a_finite_loss_and_no_slope(y):
    value, slope = loss_and_slope(y, y)
    assert np.isfinite(value)
    assert slope.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("y_true", "y_pred"),
    [(TRUTH, 1 - TRUTH), (FULL, EMPTY), (EMPTY, FULL)],
    ids=["disjoint", "only false negatives", "only false positives"],
)
def test_an_entirely_wrong_batch_has_a_finite_slope_towards_the_truth(y_true, y_pred):
    value, slope = loss_and_slope(y_true, y_pred)
    tumour = y_true.numpy().ravel() == 1
    assert np.isfinite(value) and np.isfinite(slope).all()
    assert (slope[tumour] < 0).all()
    assert (slope[~tumour] > 0).all()


@pytest.mark.parametrize("y", [TRUTH, EMPTY], ids=["some tumour", "no tumour"])
@pytest.mark.parametrize("off", [1e-7, 1e-5, 1e-3])
def test_a_nearly_perfect_batch_has_a_finite_slope(y, off):
    _, slope = loss_and_slope(y, tf.abs(y - off))
    assert np.isfinite(slope).all()


def test_slope_of_a_single_tumour_pixel():
    # Probability p for one tumour pixel, w = 1: TI = (p + 1) / (p + (1 - p) + 1) = (p + 1) / 2,
    # so the slope of 1 - TI over p is -1/2.
    y_true, y_pred = batch([1, 0, 0, 0]), batch([0.25, 0, 0, 0])
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = focal_tversky(y_true, y_pred, missed_weight=1.0, exponent=1.0)
    assert float(value) == pytest.approx(1 - 1.25 / 2)
    assert tape.gradient(value, y_pred).numpy().ravel()[0] == pytest.approx(-0.5)


def test_the_keras_loss_gives_the_value_of_the_function():
    y_pred = batch([1, 1, 0, 0])
    value = FocalTversky(missed_weight=0.7, exponent=0.75)(TRUTH, y_pred)
    assert value.shape == ()
    assert float(value) == pytest.approx((0.7 / 3.7) ** 0.75)


SLICES = batch([1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0])


def by_slice(share: float, y_pred) -> float:
    return float(focal_tversky(SLICES, y_pred, missed_weight=0.7, exponent=1, by_slice=share))


def test_by_slice_is_the_mean_over_slices_with_tumour():
    # Perfect: no loss; FN 1 of 1: 1 - 10 / 10.7; the third has no tumour and does not count.
    y_pred = batch([1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0])
    assert by_slice(1, y_pred) == pytest.approx((1 - 10 / 10.7) / 2, rel=1e-4)


def test_by_slice_the_same_false_negative_costs_more_in_a_small_tumour():
    small = batch([1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0])
    large = batch([0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0])
    assert by_slice(0, small) == pytest.approx(by_slice(0, large))  # one sum: all pixels alike
    assert by_slice(1, small) > 1.2 * by_slice(1, large)


def test_by_slice_is_mixed_with_the_loss_of_the_batch():
    y_pred = batch([1, 1, 0, 0.5], [0.5, 0, 0, 0], [0, 0.3, 0, 0])
    of_batch, of_slices = by_slice(0, y_pred), by_slice(1, y_pred)
    assert by_slice(0.25, y_pred) == pytest.approx(0.75 * of_batch + 0.25 * of_slices)
    assert abs(of_batch - of_slices) > 0.05


@pytest.mark.parametrize("y_pred", [EMPTY, FULL])
def test_by_slice_without_any_tumour_only_the_batch_counts_and_the_slope_is_finite(y_pred):
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = focal_tversky(EMPTY, y_pred, missed_weight=0.7, exponent=0.75, by_slice=0.5)
    assert float(value) == pytest.approx(0.5 * loss(EMPTY, y_pred))
    assert np.isfinite(tape.gradient(value, y_pred)).all()
