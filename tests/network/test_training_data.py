from dataclasses import replace

import numpy as np
import squares

from pipeline.network import training_data

SLICES = squares.make(patients=[0] * 10, side=16, square=7, last=8)


def test_slices_in_memory_are_yielded_one_step_at_a_time():
    first, second = SLICES.parts(np.array([[1, 2], [5, 0]]))
    assert np.array_equal(second.images, SLICES.images[[5, 0]])
    assert np.array_equal(first.masks, SLICES.masks[[1, 2]])
    assert first.chosen.tolist() == second.chosen.tolist() == [[0, 1]]


def test_slices_on_the_device_are_yielded_for_all_steps_at_once():
    chosen = np.array([[1, 2], [5, 0]])
    (part,) = SLICES.on_device().parts(chosen)
    assert np.array_equal(np.asarray(part.images)[:10], SLICES.images)  # JAX pads behind them
    assert np.array_equal(np.asarray(part.masks)[:10], SLICES.masks)
    assert np.array_equal(part.chosen, chosen)


def test_placing_slices_on_the_device_leaves_the_original_on_the_host():
    on_device = SLICES.on_device()
    assert on_device.is_on_device and not SLICES.is_on_device
    assert isinstance(SLICES.images, np.ndarray)


def test_an_epoch_that_is_not_balanced_takes_every_slice_once_in_a_new_order():
    source, rng = replace(SLICES, has_tumour=np.arange(10) < 3), np.random.default_rng(0)
    first, second = (training_data.epoch_order(source, rng, balanced=False) for _ in "ab")
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()


def test_a_balanced_epoch_takes_as_many_slices_without_tumour_as_with():
    source = replace(SLICES, has_tumour=np.arange(10) < 3)
    rng = np.random.default_rng(0)
    orders = [training_data.epoch_order(source, rng, balanced=True) for _ in range(20)]
    assert all(set(order) >= {0, 1, 2} and len(set(order)) == len(order) == 6 for order in orders)
    assert set(np.concatenate(orders)) == set(range(10))


def test_a_balanced_epoch_takes_all_slices_without_tumour_if_there_are_fewer():
    source = replace(SLICES, has_tumour=np.arange(10) < 8)
    order = training_data.epoch_order(source, np.random.default_rng(0), balanced=True)
    assert sorted(order) == list(range(10))
