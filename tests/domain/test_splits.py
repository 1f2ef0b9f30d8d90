from collections import Counter

import pytest

from pipeline.domain.splits import (
    SPLITS,
    assignment,
    fold_assignment,
    fold_of,
    hash_position,
    in_several_splits,
    slice_key,
    split_in_fold,
    split_of,
)

SALT = "salt"
NAMES = [f"TCGA_DU_{number:04d}" for number in range(5000)]


def splits_by_name(names, *, salt=SALT, validation=0.1, test=0.2) -> dict[str, str]:
    return {name: split_of(name, salt=salt, validation=validation, test=test) for name in names}


def test_a_position_is_the_first_eight_bytes_of_the_digest():
    # printf 'salt:TCGA_DU_0001' | sha256sum
    assert hash_position("TCGA_DU_0001", salt="salt") == 0xC4490A7B68BAB3EF / 2**64


def test_positions_lie_in_zero_to_one_without_one():
    assert all(0 <= hash_position(name, salt=SALT) < 1 for name in NAMES)


def test_adding_patients_moves_no_patient():
    few, many = splits_by_name(NAMES[:60]), splits_by_name(NAMES)
    assert {name: many[name] for name in few} == few


def test_the_order_of_patients_does_not_count():
    assert splits_by_name(reversed(NAMES[:60])) == splits_by_name(NAMES[:60])


def test_all_three_splits_occur_and_no_other():
    assert set(splits_by_name(NAMES).values()) == set(SPLITS)


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.25, 0.25), (0.02, 0.05)])
def test_shares_are_close_to_those_asked_for(validation, test):
    counts = Counter(splits_by_name(NAMES, validation=validation, test=test).values())
    assert counts["test"] / 5000 == pytest.approx(test, abs=0.02)
    assert counts["validation"] / 5000 == pytest.approx(validation, abs=0.02)
    assert counts["train"] / 5000 == pytest.approx(1 - validation - test, abs=0.02)


def test_a_larger_validation_share_never_moves_a_test_patient():
    before, after = splits_by_name(NAMES, validation=0.1), splits_by_name(NAMES, validation=0.4)
    test_before = {name for name, split in before.items() if split == "test"}
    test_after = {name for name, split in after.items() if split == "test"}
    assert test_before == test_after


def test_a_larger_validation_share_moves_patients_from_train_only():
    before, after = splits_by_name(NAMES, validation=0.1), splits_by_name(NAMES, validation=0.4)
    moved = {(before[name], after[name]) for name in NAMES if before[name] != after[name]}
    assert moved == {("train", "validation")}


def test_a_larger_test_share_keeps_every_test_patient():
    before, after = splits_by_name(NAMES, test=0.2), splits_by_name(NAMES, test=0.3)
    assert {after[name] for name in NAMES if before[name] == "test"} == {"test"}


def test_another_salt_gives_an_independent_assignment():
    first, second = splits_by_name(NAMES), splits_by_name(NAMES, salt="pepper")
    same = sum(first[name] == second[name] for name in NAMES) / 5000
    assert same == pytest.approx(0.7**2 + 0.1**2 + 0.2**2, abs=0.03)  # agree by chance only


def test_a_split_includes_its_lower_bound_and_excludes_its_upper_bound():
    position = hash_position("A", salt=SALT)
    assert split_of("A", salt=SALT, test=position, validation=0.01) == "validation"
    assert split_of("A", salt=SALT, test=position + 1e-9, validation=0.01) == "test"
    assert split_of("A", salt=SALT, test=position / 2, validation=position / 2) == "train"


def test_slices_of_a_patient_have_different_keys():
    assert slice_key("A", 12) == "A/12"
    assert slice_key("A", 1) != slice_key("A", 11)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], []),
        ([("A", "train"), ("B", "test")], []),
        ([("A", "train"), ("A", "train")], []),
        ([("B", "train"), ("A", "test"), ("B", "test"), ("A", "train")], ["A", "B"]),
        ([("A", "train"), ("A", "validation"), ("A", "test"), ("C", "test")], ["A"]),
    ],
)
def test_names_in_several_splits_are_returned_sorted(rows, expected):
    assert in_several_splits(rows) == expected


def test_no_patient_appears_in_two_splits_if_patients_are_split():
    rows = [(name, split) for name, split in splits_by_name(NAMES[:200]).items() for _ in range(3)]
    assert in_several_splits(rows) == []


def test_patients_appear_in_several_splits_if_slices_are_split():
    rows = [
        (name, split_of(slice_key(name, number), salt=SALT, validation=0.1, test=0.2))
        for name in NAMES[:20]
        for number in range(30)
    ]
    assert in_several_splits(rows) == NAMES[:20]


def splits_in_fold(fold: int, names=NAMES) -> dict[str, str]:
    return {name: split_in_fold(name, fold, salt=SALT, folds=5, validation=0.1) for name in names}


def test_each_patient_is_in_the_test_split_of_exactly_one_fold():
    tests = Counter(
        name
        for fold in range(1, 6)
        for name, split in splits_in_fold(fold).items()
        if split == "test"
    )
    assert tests == dict.fromkeys(NAMES, 1)


def test_the_test_split_of_a_fold_is_the_patients_of_that_fold():
    in_test = {name for name, split in splits_in_fold(2).items() if split == "test"}
    assert in_test == {name for name in NAMES if fold_of(name, salt=SALT, folds=5) == 2}


def test_folds_have_similar_sizes():
    sizes = Counter(fold_of(name, salt=SALT, folds=5) for name in NAMES)
    assert sorted(sizes) == [1, 2, 3, 4, 5]
    assert max(sizes.values()) / 5000 == pytest.approx(0.2, abs=0.02)


def test_folds_are_independent_of_the_split():
    in_test = [name for name, split in splits_by_name(NAMES).items() if split == "test"]
    sizes = Counter(fold_of(name, salt=SALT, folds=5) for name in in_test)
    assert sorted(sizes) == [1, 2, 3, 4, 5]
    assert max(sizes.values()) / len(in_test) == pytest.approx(0.2, abs=0.05)


def test_adding_patients_moves_no_patient_between_folds():
    many = splits_in_fold(3)
    assert splits_in_fold(3, NAMES[:60]) == {name: many[name] for name in NAMES[:60]}


def test_folds_have_different_validation_patients():
    first, second = (
        {name for name, split in splits_in_fold(fold).items() if split == "validation"}
        for fold in (1, 2)
    )
    assert len(first & second) < 0.2 * len(first)


# Positions below are the first eight bytes of `printf 'salt:A' | sha256sum` and the like, / 2**64.


def test_an_assignment_gives_the_split_of_each_name_in_order():
    # Positions: A 0.674, B 0.325, C 0.198. Test ends at 0.2, validation at 0.5.
    splits = assignment(["C", "A", "B", "A"], salt="salt", validation=0.3, test=0.2)
    assert splits == ["test", "train", "validation", "train"]


@pytest.mark.parametrize(
    ("fold", "expected"),
    [
        # With the salt "salt fold 1": B 0.541, D 0.261, H 0.706. Validation ends at 0.6.
        (1, ["test", "validation", "validation", "train", "test"]),
        # With the salt "salt fold 2": A 0.446, G 0.643.
        (2, ["validation", "test", "test", "test", "train"]),
    ],
)
def test_a_fold_assignment_gives_the_split_of_each_name_in_order(fold, expected):
    # With the salt "salt folds": A 0.153, B 0.618, D 0.711, H 0.767, G 0.111. Below 0.5: fold 1.
    splits = fold_assignment("ABDHG", fold, salt="salt", folds=2, validation=0.6)
    assert splits == expected


def test_assignments_of_no_names_are_empty():
    assert assignment([], salt="salt", validation=0.3, test=0.2) == []
    assert fold_assignment([], 1, salt="salt", folds=2, validation=0.6) == []
