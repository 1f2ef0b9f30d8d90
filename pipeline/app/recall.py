"""Withdraw a patient: find everything the patient touched, and keep them out of later builds."""

import datetime
from dataclasses import dataclass

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.storage import csv_files, recall_list
from pipeline.adapters.tracking import registry as tracking
from pipeline.adapters.tracking.registry import Registry
from pipeline.adapters.tracking.versions import CHAMPION, Version
from pipeline.domain import recall as rules
from pipeline.domain.decisions import DecisionRecord
from pipeline.domain.recall import TouchedVersion
from pipeline.errors import GliaflowError


@dataclass(frozen=True)
class Trace:
    """Everything that a patient touched.

    folders: with the patient's files, relative to the checkout.
    split: of the patient in the work tree, as built last; None if in none.
    decisions: numbers of those that compared models on the patient, or moved a version that
        the patient shaped.
    """

    patient: str
    folders: tuple[str, ...]
    split: str | None
    versions: tuple[TouchedVersion, ...]
    decisions: tuple[int, ...]


def recall(
    project: Project, registry: Registry, patient: str, *, by: str | None, why: str
) -> Trace:
    """Put a patient on the list, and withdraw every version that the patient shaped.

    Raises:
        GliaflowError: no file, split or version of this checkout knows the patient.
    """
    found = trace(project, registry, patient)
    if not (found.folders or found.split or found.versions):
        raise GliaflowError(
            f"{patient} is in no batch, split or version of this checkout; expected the name of a "
            "patient as in data/manifest.csv"
        )
    recall_list.add(
        project.path("recalled"),
        patient=patient,
        when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        who=by or tracking.current_user(),
        why=why,
    )
    for touched in found.versions:
        registry.mark_recalled(touched.version, patient, is_shaped=touched.is_shaped)
    return found


def trace(project: Project, registry: Registry, patient: str) -> Trace:
    """Find everything that a patient touched; changes nothing."""
    versions = [
        TouchedVersion(version.version, splits, CHAMPION in version.aliases)
        for version in registry.versions()
        if (splits := _splits_of(registry, version, patient)) is not None
    ]
    shaped = {touched.version for touched in versions if touched.is_shaped}
    decisions = [
        decision.number
        for decision in registry.decisions()
        if decision.number is not None and _touches(registry, decision, patient, shaped)
    ]
    return Trace(
        patient, _folders(project, patient), _split(project, patient), tuple(versions),
        tuple(decisions),
    )  # fmt: skip


def faults(project: Project, registry: Registry) -> list[str]:
    """Say which recalled patients the champion was trained on.

    Raises:
        GliaflowError: the champion's split is missing or was changed: nothing can be told.
    """
    recalled = list(recall_list.read(project.path("recalled")).patient)
    champion = registry.champion()
    if champion is None or not recalled:
        return []
    table = registry.splits(champion)
    splits = {str(patient): set(rows.split) for patient, rows in table.groupby("patient")}
    return [
        f"the champion, version {champion.version}, was trained on {patient} ({split}), who is "
        "recalled: build and promote a model without this patient (`gliaflow run`)"
        for patient, split in rules.held_patients(recalled, splits)
    ]


def _splits_of(registry: Registry, version: Version, patient: str) -> tuple[str, ...] | None:
    """Return the splits of a patient in a version; empty if unknown, None if in none."""
    try:
        table = registry.splits(version)
    except GliaflowError:
        return ()
    splits = sorted(set(table.split[table.patient == patient]))
    return tuple(map(str, splits)) if splits else None


def _touches(registry: Registry, decision: DecisionRecord, patient: str, shaped: set[int]) -> bool:
    if shaped & {decision.candidate.version, decision.champion.before, decision.champion.after}:
        return True
    if decision.comparison is None or decision.number is None:
        return False
    full = registry.full_decision(decision.number).comparison
    return full is not None and any(score.patient == patient for score in full.patients)


def _folders(project: Project, patient: str) -> tuple[str, ...]:
    parents = (project.path("incoming"), project.path("raw"))
    return tuple(
        str(folder.relative_to(project.root))
        for parent in parents
        for folder in sorted(parent.glob(f"*/{patient}"))
        if folder.is_dir()
    )


def _split(project: Project, patient: str) -> str | None:
    path = project.path("splits")
    if not path.exists():
        return None
    table = csv_files.read_table(path)
    splits = sorted(set(table.split[table.patient == patient]))
    return ", ".join(map(str, splits)) or None
