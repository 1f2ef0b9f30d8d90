"""Collect the evidence for a decision: both models scored now, and the checks that were made.

Candidate and champion segment the same test patients of this checkout, each with its own
post-processing. A stored score is never compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.model import model_files, predictions, scan_model
from pipeline.adapters.model.scan_model import ScanModel
from pipeline.adapters.process import native_logs, progress
from pipeline.adapters.scans import arrays
from pipeline.adapters.storage import csv_files, files, stage_tables
from pipeline.adapters.tracking.registry import Registry
from pipeline.adapters.tracking.versions import Version
from pipeline.domain import lineage, metrics
from pipeline.domain.comparison import PatientScore
from pipeline.domain.decisions import DecisionRecord
from pipeline.domain.gate import Evidence, Reason
from pipeline.domain.postprocessing import PostProcessing
from pipeline.domain.summaries import GROUPINGS
from pipeline.errors import GliaflowError

SEEN_IN_TRAINING = ("train", "validation")  # the best epoch is chosen by validation
LINEAGE_FILES = {"manifest.csv": "data", "splits.csv": "split"}  # artifact to its tag


@dataclass(frozen=True)
class TestPatients:
    """The test patients of the work tree.

    rows: of the manifest, one per slice, with `position`.
    groups: patient to grouping to group.
    digest: of these rows, which hold the SHA-256 of every slice and mask.
    """

    rows: pd.DataFrame
    groups: Mapping[str, Mapping[str, str]]
    digest: str

    @property
    def names(self) -> list[str]:
        return sorted(self.rows.patient.unique())

    @property
    def positions(self) -> dict[str, np.ndarray]:
        """Patient to the positions of its test slices in its arrays."""
        return dict(stage_tables.slice_positions(self.rows))


@dataclass(frozen=True)
class ScoredModel:
    """The masks and scores of a version.

    masks: patient to (S, H, W) bool.
    tversky: patient to its Tversky index, in [0, 1].
    """

    masks: Mapping[str, np.ndarray]
    tversky: Mapping[str, float]


def test_patients(project: Project) -> TestPatients:
    """Read the test patients from the files of the stages.

    Raises:
        GliaflowError: a stage has not run, or there are none.
    """
    rows = stage_tables.accepted_slices(project.path("manifest"), project.path("quarantine"))
    rows = stage_tables.join_splits(rows, project.path("splits"))
    rows = rows[rows.split == "test"]
    if rows.empty:
        raise GliaflowError(
            f"{project.path('splits')} has no test patients; expected some: use more scans, or a "
            "larger split.test"
        )
    table = stage_tables.read_patients(project.path("patients"))
    table = table[table.split == "test"].set_index("patient")
    columns = {name: column for name, column in GROUPINGS.items() if column in table.columns}
    groups = {
        str(patient): {name: str(row[column]) for name, column in columns.items()}
        for patient, row in table.iterrows()
    }
    return TestPatients(rows, groups, lineage.digest_of_bytes(rows.to_csv(index=False).encode()))


def load(registry: Registry, version: Version) -> ScanModel:
    """Load a version as MLflow does, after its files were verified.

    Raises:
        GliaflowError: files are missing or were changed, or the version is not complete.
    """
    folder = registry.verify(version)
    native_logs.import_keras()
    return scan_model.load(folder)


def score(project: Project, model: ScanModel, test: TestPatients, *, label: str) -> ScoredModel:
    """Segment and score every test patient.

    Args:
        label: for the progress line.

    Raises:
        GliaflowError: the model takes slices of another size.
    """
    from pipeline.network import backend

    backend.make_repeatable(project.params.train.seed)  # masks are compared exactly
    weight = project.params.evaluate.missed_weight
    masks, tversky = {}, {}
    groups = list(test.rows.groupby("patient"))
    for patient, rows in progress.track(groups, total=len(groups), label=label):
        scan = arrays.open_scan(project.path("scans"), str(patient))
        if scan.images.shape[1:] != model.shape:
            raise GliaflowError(
                f"{label}: the model takes slices of {model.shape} and those of {patient} are "
                f"{scan.images.shape[1:]}; the two cannot be compared"
            )
        positions = rows.position.to_numpy()
        mask = model.segment(scan.images, positions).mask
        counts = metrics.overlap(scan.masks[positions].astype(bool), mask)
        masks[str(patient)] = mask
        tversky[str(patient)] = round(metrics.tversky(counts, missed_weight=weight), 6)
    return ScoredModel(masks, tversky)


def seen_patients(registry: Registry, version: Version) -> set[str]:
    """Return the patients that a version was trained on, validation included."""
    splits = registry.splits(version)
    return set(splits.patient[splits.split.isin(SEEN_IN_TRAINING)])


def patient_scores(
    test: TestPatients,
    candidate: ScoredModel,
    champion: ScoredModel | None,
    *,
    seen_by_candidate: Iterable[str],
    seen_by_champion: Iterable[str],
) -> list[PatientScore]:
    """Pair the scores of the test patients that the candidate never saw."""
    paired = set(test.names) - set(seen_by_champion) if champion else set()
    return [
        PatientScore(
            patient,
            candidate.tversky[patient],
            champion.tversky[patient] if champion and patient in paired else None,
            test.groups.get(patient, {}),
        )
        for patient in sorted(set(test.names) - set(seen_by_candidate))
    ]


def evidence(
    project: Project,
    scores: Sequence[PatientScore],
    test: TestPatients,
    *,
    has_champion: bool,
    checks: Sequence[Reason],
    looks: int,
) -> Evidence:
    """Put together what the gate decides from."""
    scored = {score.patient for score in scores}
    return Evidence(
        scores=scores,
        has_champion=has_champion,
        left_out=[patient for patient in test.names if patient not in scored],
        checks=checks,
        looks=looks,
        resamples=project.params.evaluate.resamples,
        seed=project.params.evaluate.seed,
    )


def check_loads_back(
    project: Project, version: Version, model: ScanModel, scored: ScoredModel
) -> Reason:
    """Compare a registered version with the model and the masks of the stages."""
    evaluated = model_files.load_model(project.path("model"))
    pairs = zip(model.network.get_weights(), evaluated.get_weights(), strict=True)
    same_weights = all(np.array_equal(loaded, expected) for loaded, expected in pairs)
    other = [
        patient
        for patient, mask in scored.masks.items()
        if not np.array_equal(
            mask, predictions.load_mask(project.path("predicted"), f"test/{patient}")
        )
    ]
    return Reason(
        "loads back",
        "passed" if same_weights and not other else "failed",
        f"Version {version.version}, loaded back from the registry, has "
        f"{'the' if same_weights else 'OTHER'} weights and gives "
        f"{'OTHER' if other else 'the'} masks that were evaluated "
        f"({len(scored.masks) - len(other)} of {len(scored.masks)} test patients are equal).",
    )


def check_predicts(version: Version, scored: ScoredModel) -> Reason:
    """Say that a version from the registry segmented every test patient."""
    return Reason(
        "loads back",
        "passed",
        f"Version {version.version} loads from the registry and segments all "
        f"{len(scored.masks)} test patients.",
    )


def check_complete(project: Project, model: ScanModel) -> Reason:
    """Compare the post-processing of a version with the one it was evaluated with."""
    evaluated = PostProcessing.from_params(project.params.evaluate)
    same = model.post == evaluated
    return Reason(
        "complete",
        "passed" if same else "failed",
        "It carries its intensity scaling, post-processing, image size and code"
        + ("." if same else f", but {model.post} instead of the evaluated {evaluated}."),
    )


def check_lineage(registry: Registry, version: Version) -> Reason:
    """Hash the manifest and split that a version was logged with, and compare the digests."""
    other = [
        name
        for name, part in LINEAGE_FILES.items()
        if files.sha256(registry.artifact(version, name)) != version.tags.get(f"gliaflow.{part}")
    ]
    return Reason(
        "lineage",
        "failed" if other else "passed",
        f"Its {' and '.join(other)} are not those that it was registered with."
        if other
        else "Its manifest and split are those that it was registered with.",
    )


def check_training(project: Project, scored: ScoredModel) -> Reason:
    """Check that the training did not diverge or end at a model that finds nothing."""
    history = csv_files.read_table(project.path("history"))
    finite = bool(np.isfinite(history.loss.to_numpy(dtype=float)).all())
    finds = any(mask.any() for mask in scored.masks.values())
    return Reason(
        "training",
        "passed" if finite and finds else "failed",
        f"The loss was {'finite in every epoch' if finite else 'NOT finite in some epochs'}, and "
        f"the model predicts {'tumour' if finds else 'NO tumour'} on the test patients.",
    )


def check_not_withdrawn(version: Version) -> list[Reason]:
    """Return a failed reason for a version that must not be promoted without a person."""
    if version.withdrawn is None:
        return []
    sentence = f"Version {version.version} is withdrawn ({version.withdrawn})."
    return [Reason("not withdrawn", "failed", sentence)]


def check_standing_decision(decision: DecisionRecord | None) -> list[Reason]:
    """Return a failed reason if a person's last decision stands against the candidate."""
    if decision is None:
        return []
    return [
        Reason(
            "a person's decision",
            "failed",
            f"{decision.who} put version {decision.candidate.version} into use on "
            f"{decision.when[:10]} ({decision.action}) after this model was judged; that stands until another model is "
            "trained.",
        )
    ]
