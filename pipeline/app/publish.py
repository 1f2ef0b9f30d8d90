"""Register the model that the stages wrote.

Reads the files of the stages and may run again at any time: a model is registered once per
lineage digest.
"""

from typing import Any

from pipeline.adapters.checkout import commands, provenance
from pipeline.adapters.checkout.project import Project
from pipeline.adapters.model import checkpoints, model_files
from pipeline.adapters.process import native_logs
from pipeline.adapters.report import run_settings
from pipeline.adapters.storage import json_files, stage_tables
from pipeline.adapters.tracking.registration import VersionContents
from pipeline.adapters.tracking.registry import Registry
from pipeline.adapters.tracking.versions import TVERSKY_TAG, Version
from pipeline.domain import model_card, summaries
from pipeline.domain.lineage import Lineage
from pipeline.domain.postprocessing import PostProcessing
from pipeline.errors import GliaflowError

SECRET = {"register_": {"tracking_uri"}}  # the address may hold a password
ARTIFACTS = ("manifest", "quarantine", "splits", "history", "scores", "patients", "page")


def register(project: Project, registry: Registry) -> Version:
    """Return the version of the model in the work tree; register it if it is new.

    Raises:
        GliaflowError: params.yaml was edited since the run started, or a file of a stage is
            missing.
    """
    project.refuse_changed_params()
    made_of = provenance.project_lineage(project)
    return registry.register(made_of.digest, lambda: contents(project, made_of))


def contents(project: Project, made_of: Lineage) -> VersionContents:
    """Read everything that a new version is registered with from the files of the stages."""
    native_logs.import_keras()
    scores = json_files.read_json(project.path("scores"))
    rows = stage_tables.accepted_slices(project.path("manifest"), project.path("quarantine"))
    manifest = stage_tables.join_splits(rows, project.path("splits"))
    network = model_files.load_model(project.path("model"))
    return VersionContents(
        lineage=made_of,
        training=checkpoints.training_digest(
            project.params,
            code=project.code_digest("train"),
            manifest=project.path("manifest"),
            splits=project.path("splits"),
        ),
        params=_flat(project.params.model_dump(mode="json", by_alias=True, exclude=SECRET)),
        metrics=_numbers(scores),
        history=stage_tables.read_history(project.path("history")),
        manifest=manifest,
        artifacts=(
            project.root / "params.yaml",
            project.root / "dvc.lock",
            *(project.path(key) for key in ARTIFACTS),
        ),
        tags={
            TVERSKY_TAG: json_files.as_json(scores["test"]["tversky"]),
            "gliaflow.commit": _commit(project),
        },
        network=network,
        post=PostProcessing.from_params(project.params.evaluate),
        card=model_card.render(
            name=project.params.register_.model,
            source=project.params.fetch.source,
            metrics=scores,
            counts=summaries.count_by_split(manifest),
            settings=run_settings.describe(project.params),
            height_px=network.inputs[0].shape[1],
            width_px=network.inputs[0].shape[2],
            digest=made_of.digest,
        ),
    )


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of metrics.json for MLflow; those of groups stay in the file."""
    return {
        name: value
        for name, value in _flat(scores).items()
        if isinstance(value, int | float) and not name.startswith("groups.")
    }


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings; keys are joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _commit(project: Project) -> str:
    """Return the commit of the work tree; empty outside git.

    With `+changes` if its code is not that of the work tree. Other changes do not count: data and
    parameters are registered themselves.
    """
    try:
        head = commands.git(project.root, "rev-parse", "HEAD")
        same = provenance.code_at(project.root, head) == provenance.code_of(project)
    except GliaflowError:
        return ""
    return head if same else f"{head}+changes"
