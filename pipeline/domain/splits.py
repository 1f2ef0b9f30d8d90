"""Which patients train, validate and test: by name and salt alone, so it never changes.

Does not know how many patients there are: a patient's side depends on no other patient,
so data may grow, and two copies of the data agree.
"""

import hashlib
from collections.abc import Iterable

SPLITS = ("train", "validation", "test")


def position(name: str, *, salt: str) -> float:
    """Where a name falls in [0, 1): the first 8 bytes of SHA-256 of `salt:name`."""
    digest = hashlib.sha256(f"{salt}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(name: str, *, salt: str, validation: float, test: float) -> str:
    """The side of a patient (or of `patient/slice`, where slices are split).

    Args:
        name: what must not be on two sides.
        salt: fixed text; another one deals anew.
        validation, test: shares in (0, 1), together under 1. [0, test) is test, then
            validation, the rest train: a larger validation share never moves a test patient.
    """
    where = position(name, salt=salt)
    if where < test:
        return "test"
    return "validation" if where < test + validation else "train"


def fold_of(name: str, *, salt: str, folds: int) -> int:
    """The fold, 1 to `folds`, in which a patient (or slice) is the test; sticky like `split_of`."""
    return int(position(name, salt=f"{salt} folds") * folds) + 1


def side_in_fold(name: str, fold: int, *, salt: str, folds: int, validation: float) -> str:
    """The side of a patient (or slice) in one fold of a cross-validation.

    Args:
        fold: 1 to `folds`.
        validation: share, in (0, 1), of those who are not the test of this fold; dealt anew in
            every fold, so that no fold stops by the same few patients.
    """
    if fold_of(name, salt=salt, folds=folds) == fold:
        return "test"
    where = position(name, salt=f"{salt} fold {fold}")
    return "validation" if where < validation else "train"


def slice_key(patient: str, number: int) -> str:
    return f"{patient}/{number}"


def on_two_sides(rows: Iterable[tuple[str, str]]) -> list[str]:
    """The names that appear with more than one split, sorted.

    Args:
        rows: (name, split) as they stand in a written split.
    """
    sides: dict[str, set[str]] = {}
    for name, split in rows:
        sides.setdefault(name, set()).add(split)
    return sorted(name for name, found in sides.items() if len(found) > 1)
