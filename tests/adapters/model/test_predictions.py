import numpy as np
import pytest

from pipeline.adapters.model import predictions
from pipeline.errors import GliaflowError


def masks() -> dict[str, np.ndarray]:
    """Two patients; 3 x 5 x 7 pixels are no whole number of bytes."""
    return {
        "test/A": np.random.default_rng(1).random((3, 5, 7)) < 0.5,
        "validation/B": np.zeros((1, 2, 2), bool),
    }


@pytest.mark.parametrize("patient", ["test/A", "validation/B"])
def test_masks_round_trip(tmp_path, patient):
    predictions.save_masks(tmp_path / "predictions.npz", masks())
    mask = predictions.load_mask(tmp_path / "predictions.npz", patient)
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, masks()[patient])


def test_equal_masks_give_equal_bytes(tmp_path):
    for name in ("first", "second"):
        predictions.save_masks(tmp_path / name, masks())
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_single_changed_pixel_gives_other_bytes(tmp_path):
    predictions.save_masks(tmp_path / "first", masks())
    changed = masks()
    changed["validation/B"][0, 1, 1] = True
    predictions.save_masks(tmp_path / "second", changed)
    assert (tmp_path / "first").read_bytes() != (tmp_path / "second").read_bytes()


def test_eight_pixels_take_a_byte(tmp_path):
    noise = np.random.default_rng(2).random((10, 64, 64)) < 0.5
    predictions.save_masks(tmp_path / "predictions.npz", {"test/A": noise})
    assert (tmp_path / "predictions.npz").stat().st_size < noise.size / 8 + 1000


def test_no_patients_give_a_valid_file(tmp_path):
    predictions.save_masks(tmp_path / "predictions.npz", {})
    with pytest.raises(GliaflowError, match=r"holds no prediction for test/A"):
        predictions.load_mask(tmp_path / "predictions.npz", "test/A")


def test_a_patient_without_mask_is_an_error(tmp_path):
    predictions.save_masks(tmp_path / "predictions.npz", masks())
    with pytest.raises(GliaflowError, match=r"predictions.npz holds no prediction for test/C"):
        predictions.load_mask(tmp_path / "predictions.npz", "test/C")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(GliaflowError, match=r"nowhere.npz holds no prediction .*dvc repro"):
        predictions.load_mask(tmp_path / "nowhere.npz", "test/A")


@pytest.mark.parametrize("end", [0, 100, -10])
def test_a_truncated_file_is_an_error(tmp_path, end):
    path = tmp_path / "predictions.npz"
    predictions.save_masks(path, masks())
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(GliaflowError, match=r"predictions.npz holds no prediction"):
        predictions.load_mask(path, "test/A")
