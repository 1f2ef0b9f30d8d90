"""Prefect artifacts of a retraining: scores, quarantine, decision and a link to the report."""

from typing import Any, cast

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.storage import csv_files, json_files
from pipeline.domain.decisions import DecisionRecord

QUARANTINE = "Scans in quarantine, and why. Fix the files and add the patient again in a new batch."


def create(project: Project, decision: DecisionRecord) -> None:
    """Create the artifacts of a finished retraining."""
    scores = json_files.read_json(project.path("scores"))
    create_table_artifact(key="metrics", table=score_rows(scores), description="Scores")
    quarantine = csv_files.read_table(project.path("quarantine"))
    if not quarantine.empty:
        rows = cast(list[dict[str, Any]], quarantine.fillna("").to_dict("records"))
        create_table_artifact(key="quarantine", table=rows, description=QUARANTINE)
    create_markdown_artifact(key="decision", markdown=decision_markdown(decision))
    if pairs := pair_rows(decision):
        create_table_artifact(
            key="comparison", table=pairs, description="Test Tversky by patient, largest fall first"
        )
    create_link_artifact(
        key="report", link=project.path("index").resolve().as_uri(), link_text="the report"
    )


def pair_rows(decision: DecisionRecord) -> list[dict[str, Any]]:
    """Return rows for a table: the test patients by both models, largest fall first."""
    patients = decision.comparison.patients if decision.comparison else ()
    rows = [
        {
            "patient": score.patient,
            "champion": score.champion,
            "candidate": score.candidate,
            "difference": round(score.difference, 4),
            **score.groups,
        }
        for score in patients
        if score.difference is not None
    ]
    return sorted(rows, key=lambda row: (row["difference"], row["patient"]))


def score_rows(scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows for a table: split, score, mean, interval and count.

    Args:
        scores: content of metrics.json.
    """
    return [
        {
            "split": split,
            "score": name,
            "mean": round(score["mean"], 4),
            "low": round(score["low"], 4),
            "high": round(score["high"], 4),
            "count": score.get("patients", score.get("slices")),
        }
        for split in ("test", "validation")
        for name, score in scores.get(split, {}).items()
    ]


def decision_markdown(decision: DecisionRecord) -> str:
    """Return a decision as Markdown: headline, reasons, version and digest."""
    candidate = decision.candidate
    return "\n".join(
        [
            f"## {decision.headline}",
            "",
            *(
                f"- {reason.answer if reason.passed else f'**{reason.answer}**'}: {reason.sentence}"
                for reason in decision.reasons
            ),
            "",
            f"Version {candidate.version}, digest `{candidate.digest[:12]}`.",
        ]
    )
