from collections import Counter

import pytest

from pipeline.domain.splits import (
    SPLITS,
    fold_of,
    on_two_sides,
    position,
    side_in_fold,
    slice_key,
    split_of,
)

SALT = "salt"
NAMES = [f"TCGA_DU_{number:04d}" for number in range(5000)]


def sides(names, *, salt=SALT, validation=0.1, test=0.2) -> dict[str, str]:
    return {name: split_of(name, salt=salt, validation=validation, test=test) for name in names}


def test_position_is_the_first_eight_bytes_of_the_digest():
    # printf 'salt:TCGA_DU_0001' | sha256sum
    assert position("TCGA_DU_0001", salt="salt") == 0xC4490A7B68BAB3EF / 2**64


def test_positions_lie_between_zero_and_under_one():
    assert all(0 <= position(name, salt=SALT) < 1 for name in NAMES)


def test_adding_patients_moves_nobody():
    few, many = sides(NAMES[:60]), sides(NAMES)
    assert {name: many[name] for name in few} == few


def test_the_order_of_patients_moves_nobody():
    assert sides(reversed(NAMES[:60])) == sides(NAMES[:60])


def test_every_side_is_one_of_the_three():
    assert set(sides(NAMES).values()) == set(SPLITS)


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.25, 0.25), (0.02, 0.05)])
def test_shares_come_out_near_what_was_asked(validation, test):
    counts = Counter(sides(NAMES, validation=validation, test=test).values())
    assert counts["test"] / 5000 == pytest.approx(test, abs=0.02)
    assert counts["validation"] / 5000 == pytest.approx(validation, abs=0.02)
    assert counts["train"] / 5000 == pytest.approx(1 - validation - test, abs=0.02)


def test_a_larger_validation_share_never_moves_a_test_patient():
    before, after = sides(NAMES, validation=0.1), sides(NAMES, validation=0.4)
    tested = {name for name, side in before.items() if side == "test"}
    assert tested == {name for name, side in after.items() if side == "test"}


def test_a_larger_validation_share_takes_from_train_alone():
    before, after = sides(NAMES, validation=0.1), sides(NAMES, validation=0.4)
    moved = {(before[name], after[name]) for name in NAMES if before[name] != after[name]}
    assert moved == {("train", "validation")}


def test_a_larger_test_share_keeps_every_test_patient():
    before, after = sides(NAMES, test=0.2), sides(NAMES, test=0.3)
    assert {after[name] for name in NAMES if before[name] == "test"} == {"test"}


def test_another_salt_deals_anew():
    here, there = sides(NAMES), sides(NAMES, salt="pepper")
    same = sum(here[name] == there[name] for name in NAMES) / 5000
    assert same == pytest.approx(0.7**2 + 0.1**2 + 0.2**2, abs=0.03)  # two independent deals


def test_a_side_begins_at_its_lower_bound_and_ends_before_its_upper():
    where = position("A", salt=SALT)
    assert split_of("A", salt=SALT, test=where, validation=0.01) == "validation"
    assert split_of("A", salt=SALT, test=where + 1e-9, validation=0.01) == "test"
    assert split_of("A", salt=SALT, test=where / 2, validation=where / 2) == "train"


def test_slices_of_one_patient_have_keys_of_their_own():
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
def test_names_on_two_sides_are_found_and_sorted(rows, expected):
    assert on_two_sides(rows) == expected


def test_a_split_by_patient_puts_no_patient_on_two_sides():
    rows = [(name, side) for name, side in sides(NAMES[:200]).items() for _ in range(3)]
    assert on_two_sides(rows) == []


def test_a_split_by_slice_puts_patients_on_two_sides():
    rows = [
        (name, split_of(slice_key(name, number), salt=SALT, validation=0.1, test=0.2))
        for name in NAMES[:20]
        for number in range(30)
    ]
    assert on_two_sides(rows) == NAMES[:20]


def sides_in_fold(fold: int, names=NAMES) -> dict[str, str]:
    return {name: side_in_fold(name, fold, salt=SALT, folds=5, validation=0.1) for name in names}


def test_each_patient_is_the_test_of_exactly_one_fold():
    tested = Counter(
        name for fold in range(1, 6) for name, side in sides_in_fold(fold).items() if side == "test"
    )
    assert tested == dict.fromkeys(NAMES, 1)


def test_the_test_of_a_fold_is_who_belongs_to_it():
    found = sides_in_fold(2)
    assert {n for n, side in found.items() if side == "test"} == {
        n for n in NAMES if fold_of(n, salt=SALT, folds=5) == 2
    }


def test_folds_come_out_of_like_size():
    sizes = Counter(fold_of(name, salt=SALT, folds=5) for name in NAMES)
    assert sorted(sizes) == [1, 2, 3, 4, 5]
    assert max(sizes.values()) / 5000 == pytest.approx(0.2, abs=0.02)


def test_folds_are_dealt_apart_from_the_split():
    test = {name for name, side in sides(NAMES).items() if side == "test"}
    shares = Counter(fold_of(name, salt=SALT, folds=5) for name in test)
    assert len(shares) == 5


def test_adding_patients_moves_nobody_between_folds():
    many = sides_in_fold(3)
    assert sides_in_fold(3, NAMES[:60]) == {name: many[name] for name in NAMES[:60]}


def test_each_fold_deals_validation_anew():
    one, other = (
        {n for n, side in sides_in_fold(fold).items() if side == "validation"} for fold in (1, 2)
    )
    assert len(one & other) < 0.2 * len(one)
