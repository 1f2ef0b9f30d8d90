"""Assign patients to train, validation and test, by name and salt alone.

A patient's split depends on no other patient: data may grow, and two copies of the data
agree. A unit is what must not be in two splits: a patient, or a slice of the published
protocol, which leaks patients.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal

SPLITS = ("train", "validation", "test")
Unit = Literal["patient", "slice"]


def hash_position(name: str, *, salt: str) -> float:
    """Map a name to [0, 1), by the first 8 bytes of SHA-256 of `salt:name`."""
    digest = hashlib.sha256(f"{salt}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(name: str, *, salt: str, validation: float, test: float) -> str:
    """Return the split of a unit.

    Args:
        name: of the patient, or `slice_key` of a slice.
        salt: fixed text; another salt gives another assignment of everyone.
        validation, test: shares in (0, 1), together under 1. Positions in [0, test) are test,
            validation follows, the rest is train. So a larger validation share never moves a
            test patient.
    """
    position = hash_position(name, salt=salt)
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"


def fold_of(name: str, *, salt: str, folds: int) -> int:
    """Return the fold, 1 to `folds`, in which a unit is in the test split."""
    return int(hash_position(name, salt=f"{salt} folds") * folds) + 1


def split_in_fold(name: str, fold: int, *, salt: str, folds: int, validation: float) -> str:
    """Return the split of a unit in one fold of a cross-validation.

    Args:
        fold: 1 to `folds`.
        validation: share, in (0, 1), of the units that are not in the test split. They are
            assigned independently in every fold, so that folds differ in validation patients.
    """
    if fold_of(name, salt=salt, folds=folds) == fold:
        return "test"
    position = hash_position(name, salt=f"{salt} fold {fold}")
    return "validation" if position < validation else "train"


def fold_assignment(
    names: Iterable[str], fold: int, *, salt: str, folds: int, validation: float
) -> list[str]:
    """Return the split of every unit in one fold; see `split_in_fold`."""
    return [
        split_in_fold(name, fold, salt=salt, folds=folds, validation=validation) for name in names
    ]


def assignment(names: Iterable[str], *, salt: str, validation: float, test: float) -> list[str]:
    """Return the split of every unit; see `split_of`."""
    return [split_of(name, salt=salt, validation=validation, test=test) for name in names]


def slice_key(patient: str, number: int) -> str:
    """Return the name of a slice as a unit of the published protocol, which splits slices."""
    return f"{patient}/{number}"


def in_several_splits(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names that appear with more than one split, sorted.

    Args:
        rows: (name, split) as read from splits.csv.
    """
    splits: dict[str, set[str]] = {}
    for name, split in rows:
        splits.setdefault(name, set()).add(split)
    return sorted(name for name, assigned in splits.items() if len(assigned) > 1)
