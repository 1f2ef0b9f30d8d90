from pipeline.domain import recall
from pipeline.domain.recall import TouchedVersion


def test_training_and_validation_patients_shape_a_model_and_test_patients_do_not():
    splits = {"A": ["train"], "B": ["validation"], "C": ["test"], "D": ["train"]}
    assert recall.held_patients(["C", "B", "A"], splits) == [("A", "train"), ("B", "validation")]


def test_a_patient_in_no_split_is_not_held():
    assert recall.held_patients(["A"], {}) == []


def test_a_version_whose_split_cannot_be_read_may_be_shaped_by_anybody():
    assert TouchedVersion(1, (), is_champion=False).is_shaped
    assert not TouchedVersion(1, ("test",), is_champion=False).is_shaped
    assert TouchedVersion(1, ("test", "train"), is_champion=False).is_shaped  # split by slice
