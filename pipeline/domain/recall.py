"""The list of withdrawn patients, and what a model that saw one of them means.

Takes values and returns values; does not know files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

COLUMNS = ["patient", "when", "who", "why"]
RULE = "recalled"
SHAPED_BY = ("train", "validation")  # splits that shape a model; test patients only score it


@dataclass(frozen=True)
class TouchedVersion:
    """A version that was trained or scored on a patient.

    splits: of the patient in that version, such as `train`; empty: its split cannot be read.
    """

    version: int
    splits: tuple[str, ...]
    is_champion: bool

    @property
    def is_shaped(self) -> bool:
        """Whether the patient shaped the model, or may have."""
        return not self.splits or any(split in SHAPED_BY for split in self.splits)

    def __str__(self) -> str:
        name = f"version {self.version}{' (the champion)' if self.is_champion else ''}"
        return f"{name}: {', '.join(self.splits) or 'its split cannot be read'}"


def held_patients(
    recalled: Iterable[str], splits: Mapping[str, Iterable[str]]
) -> list[tuple[str, str]]:
    """Return (patient, split) of recalled patients that shaped a model.

    Args:
        splits: patient to the splits it is in.
    """
    return [
        (patient, split)
        for patient in sorted(set(recalled))
        for split in sorted(splits.get(patient, ()))
        if split in SHAPED_BY
    ]
