"""Limits on what a source or a batch may hold, and what in it exceeds them."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.adapters.scans.listing import SourceFile
from pipeline.errors import GliaflowError
from pipeline.params import Fetch


@dataclass(frozen=True)
class Limits:
    """What a source or a batch may hold at most: keys of the section `fetch` of params.yaml.

    max_gib: what a zip expands to. max_file_mib: size of a file. max_patient_files: files of a
    patient, masks included. max_batch_patients: patients.
    """

    max_gib: float
    max_file_mib: float = math.inf
    max_patient_files: float = math.inf
    max_batch_patients: float = math.inf

    @classmethod
    def from_params(cls, section: Fetch) -> "Limits":
        """Return the limits that params.yaml sets."""
        return cls(
            max_gib=section.max_gib,
            max_file_mib=section.max_file_mib,
            max_patient_files=section.max_patient_files,
            max_batch_patients=section.max_batch_patients,
        )


@dataclass(frozen=True)
class Excess:
    """A file or a patient over a limit. file: empty if it is the patient."""

    patient: str
    file: str
    where: str
    found: str
    allowed: str


def check_limits(listed: list[SourceFile], limits: Limits, source: str) -> None:
    """Make sure that a source keeps the limits; copies of a file count once.

    Raises:
        GliaflowError: it does not; names the file or patient, the number and the limit.
    """
    check_patients(listed, limits, source)
    for excess in find_excesses(listed, limits):
        raise GliaflowError(
            f"{excess.where} {excess.found}; allowed: {excess.allowed}; nothing was copied: "
            "remove it from the source, or raise the limit"
        )


def check_patients(listed: Iterable[SourceFile], limits: Limits, source: str) -> None:
    """Make sure that a source has no more patients than allowed.

    Raises:
        GliaflowError: it has.
    """
    count = len({file.patient for file in listed if file.patient})
    if count > limits.max_batch_patients:
        raise GliaflowError(
            f"{source} holds {count} patients; allowed: {limits.max_batch_patients} "
            "(fetch.max_batch_patients in params.yaml); nothing was copied: split it, or raise "
            "the limit"
        )


def find_excesses(listed: Iterable[SourceFile], limits: Limits) -> list[Excess]:
    """Return the files that are too large, then the patients with too many files."""
    names: dict[str, set[str]] = defaultdict(set)
    excesses = []
    for file in listed:
        names[file.patient].add(file.name)
        if file.size > limits.max_file_mib * 2**20:
            found = f"has {file.size / 2**20:.1f} MiB"
            allowed = f"{limits.max_file_mib} (fetch.max_file_mib in params.yaml)"
            excesses.append(Excess(file.patient, file.inside, file.where, found, allowed))
    allowed = f"{limits.max_patient_files} (fetch.max_patient_files in params.yaml)"
    return excesses + [
        Excess(patient, "", f"the patient {patient}", f"has {len(of_patient)} files", allowed)
        for patient, of_patient in sorted(names.items())
        if len(of_patient) > limits.max_patient_files
    ]
