import numpy as np
import pytest

from pipeline.adapters import predictions
from pipeline.errors import GliaflowError


def masks() -> dict[str, np.ndarray]:
    """Two patients; 3 x 5 x 7 pixels are no whole number of bytes."""
    return {
        "test/A": np.random.default_rng(1).random((3, 5, 7)) < 0.5,
        "validation/B": np.zeros((1, 2, 2), bool),
    }


@pytest.mark.parametrize("patient", ["test/A", "validation/B"])
def test_masks_round_trip(tmp_path, patient):
    predictions.save(tmp_path / "predictions.npz", masks())
    read = predictions.load(tmp_path / "predictions.npz", patient)
    assert read.dtype == np.bool_
    assert np.array_equal(read, masks()[patient])


def test_equal_masks_give_equal_bytes(tmp_path):
    for name in ("one", "other"):
        predictions.save(tmp_path / name, masks())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_one_other_pixel_gives_other_bytes(tmp_path):
    predictions.save(tmp_path / "one", masks())
    changed = masks()
    changed["validation/B"][0, 1, 1] = True
    predictions.save(tmp_path / "other", changed)
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()


def test_eight_pixels_take_a_byte(tmp_path):
    noise = np.random.default_rng(2).random((10, 64, 64)) < 0.5
    predictions.save(tmp_path / "predictions.npz", {"test/A": noise})
    assert (tmp_path / "predictions.npz").stat().st_size < noise.size / 8 + 1000


def test_no_patients_are_a_file_too(tmp_path):
    predictions.save(tmp_path / "predictions.npz", {})
    with pytest.raises(GliaflowError, match=r"holds no prediction for test/A"):
        predictions.load(tmp_path / "predictions.npz", "test/A")


def test_another_patient_is_told(tmp_path):
    predictions.save(tmp_path / "predictions.npz", masks())
    with pytest.raises(GliaflowError, match=r"predictions.npz holds no prediction for test/C"):
        predictions.load(tmp_path / "predictions.npz", "test/C")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(GliaflowError, match=r"nowhere.npz holds no prediction .*dvc repro"):
        predictions.load(tmp_path / "nowhere.npz", "test/A")


@pytest.mark.parametrize("kept", [0, 100, -10])
def test_a_torn_file_is_told(tmp_path, kept):
    path = tmp_path / "predictions.npz"
    predictions.save(path, masks())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(GliaflowError, match=r"predictions.npz holds no prediction"):
        predictions.load(path, "test/A")
