"""Pictures of the worst falls: a slice with the reference, the champion's and the candidate's mask.

Made when the two models are scored, and kept in `.local` until the decision is shown.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.report import slice_images
from pipeline.adapters.scans import arrays
from pipeline.adapters.storage import json_files
from pipeline.domain import intensity
from pipeline.domain.comparison import PatientScore
from pipeline.domain.decisions import DecisionRecord

PATIENTS = 3  # pictured at most, those with the largest fall


def keep(
    project: Project,
    scores: Sequence[PatientScore],
    positions: Mapping[str, np.ndarray],
    *,
    candidate: Mapping[str, np.ndarray],
    champion: Mapping[str, np.ndarray],
    key: str,
) -> None:
    """Write the pictures of the patients that fell most; none if nobody fell.

    Args:
        scores: of the test patients. positions: patient to the positions of its N test slices.
        candidate, champion: patient to (N, H, W) bool.
        key: names the two models and the test patients.
    """
    fell = [s for s in scores if s.difference is not None and s.difference < 0]
    fell.sort(key=lambda score: (score.difference, score.patient))
    pictures = [
        _picture(project, s, positions[s.patient], candidate[s.patient], champion[s.patient])
        for s in fell[:PATIENTS]
    ]
    json_files.write_json(project.local.comparison, {"key": key, "pictures": pictures})


def stored(project: Project, decision: DecisionRecord) -> list[dict[str, Any]]:
    """Return the pictures that were kept for a decision; none if they are of another one."""
    path = project.local.comparison
    if not path.exists() or decision.test is None:
        return []
    kept = json_files.read_json(path)
    key = key_of(decision.candidate.version, decision.champion.before, decision.test.digest)
    return list(kept["pictures"]) if kept.get("key") == key else []


def key_of(candidate: int, champion: int | None, test_digest: str) -> str:
    return f"{candidate} against {champion} on {test_digest}"


def _picture(
    project: Project,
    score: PatientScore,
    positions: np.ndarray,
    candidate: np.ndarray,
    champion: np.ndarray,
) -> dict[str, Any]:
    """Return the slice on which the two masks differ most, with all masks."""
    scan = arrays.open_scan(project.path("scans"), score.patient)
    chosen = int((candidate ^ champion).sum(axis=(1, 2)).argmax())
    position = int(positions[chosen])
    image = intensity.apply_scale(
        np.asarray(scan.images[position]), intensity.estimate_scale(scan.images)
    )
    return {
        "patient": score.patient,
        "slice": position + 1,
        "champion_score": score.champion,
        "candidate_score": score.candidate,
        **slice_images.render_masks(
            image,
            truth=scan.masks[position].astype(bool),
            champion=champion[chosen],
            candidate=candidate[chosen],
        ),
    }
