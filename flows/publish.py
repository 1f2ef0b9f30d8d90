"""Register, decide, promote: what happens to a model once its files are there.

Reads the stages' files, works without Prefect, and may be called again at any time: the
same model is found by its digest, and the same decision is not written twice.
"""

import datetime
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from flows import leakage
from pipeline.adapters import (
    arrays,
    checkpoints,
    files,
    forms,
    model_files,
    predictions,
    provenance,
    quiet,
    registry,
    report,
    tables,
)
from pipeline.adapters.project import Project
from pipeline.adapters.registry import Registry, Version
from pipeline.domain import gate, masks
from pipeline.domain.metrics import Interval
from pipeline.errors import GliaflowError
from pipeline.params import Gate

KEPT = ("manifest", "quarantine", "splits", "history", "scores", "patients", "page")


def open_registry(project: Project) -> Registry:
    return Registry(project.params().register_, project.root)


def register(project: Project) -> Version:
    """The version of the model in the work tree, registered now or found by its digest."""
    params = project.params()
    scores = files.read_json(project.path("scores"))
    rows = tables.accepted(project.path("manifest"), project.path("quarantine"))
    material = registry.Material(
        lineage=provenance.of_project(project),
        training=checkpoints.training_digest(
            params, manifest=project.path("manifest"), splits=project.path("splits")
        ),
        params=_flat(params.model_dump(mode="json", by_alias=True)),
        metrics={
            name: value
            for name, value in _flat(scores).items()
            if isinstance(value, int | float) and not name.startswith("groups.")
        },
        history=files.read_table(project.path("history")),
        manifest=tables.with_split(rows, project.path("splits")),
        artifacts=(
            project.root / "params.yaml",
            project.root / "dvc.lock",
            *(project.path(key) for key in KEPT),
        ),
        tags={
            "gliaflow.test_tversky": files.as_json(scores["test"]["tversky"]),
            "gliaflow.commit": _commit(project.root),
        },
    )
    return open_registry(project).register(material, lambda: _own_model(project))


def decide(project: Project, version: Version) -> dict[str, Any]:
    """Judge a version that was just registered from the work tree.

    Returns:
        The content of decision.json, before anything is moved. Where this very version was
        judged by the same policy and is still in the same place, that decision again.
    """
    store = open_registry(project)
    policy = policy_of(project.params().gate)
    before = store.champion()
    earlier = _same_decision(store, version, policy, before)
    if earlier is not None:
        return earlier
    loads_back, loaded = _loads_back(project, store, version)
    decision = gate.decide(
        interval_of(version), policy=policy, loads_back=loads_back, loaded=loaded
    )
    return decision_record(decision, version=version, before=before, policy=policy)


def promote(project: Project, decision: dict[str, Any]) -> dict[str, Any]:
    """Do what was decided: move the alias, write the decision down for good and onto the page."""
    store = open_registry(project)
    if decision not in store.decisions():
        version = store.version(decision["candidate"]["version"])
        if decision["verdict"] == "promote":
            store.crown(version)
        store.record_decision(decision)
    files.write_json(project.path("index").with_name("decision.json"), decision)
    page = project.path("page")
    if page.exists():
        measured = leakage.kept(project, project.params())
        text = report.with_decision(page.read_text(encoding="utf-8"), decision, leakage=measured)
        files.write_text(project.path("index"), text)
    return decision


def promote_version(
    project: Project, number: int, *, override: str | None, by: str | None
) -> dict[str, Any]:
    """Put a registered version into use, as the gate allows or on a person's word.

    Args:
        number: of the version.
        override, by: reason and name of who answers for it, where the gate says no.

    Returns:
        The decision, which is kept in any case.
    """
    store = open_registry(project)
    version, before = store.version(number), store.champion()
    policy = policy_of(project.params().gate)
    loads_back, loaded = _answers(store, version)
    judged = gate.decide(interval_of(version), policy=policy, loads_back=loads_back, loaded=loaded)
    if override is not None:
        judged = replace(judged, verdict="promote")
    decision = decision_record(judged, version=version, before=before, policy=policy)
    if override is not None:
        decision |= {"override": override, "who": by}
    if decision["verdict"] == "promote":
        store.crown(version)
    store.record_decision(decision)
    return decision


def policy_of(section: Gate) -> gate.Policy:
    return gate.Policy(**section.model_dump())


def interval_of(version: Version) -> Interval:
    """The test Tversky that a version was registered with.

    Raises:
        GliaflowError: it was registered by something else.
    """
    score = version.test_tversky
    try:
        return Interval(score["mean"], score["low"], score["high"], int(score["patients"]))
    except KeyError as error:
        raise GliaflowError(
            f"version {version.version} carries no test Tversky; expected one that "
            "`gliaflow run` registered"
        ) from error


def decision_record(
    decision: gate.Decision, *, version: Version, before: Version | None, policy: gate.Policy
) -> dict[str, Any]:
    """A decision as it is kept: verdict, reasons, who, when, and the champion before and after."""
    old = before.version if before else None
    return {
        **decision.as_dict(),
        "candidate": {
            "version": version.version,
            "digest": version.digest,
            "tversky": version.test_tversky,
        },
        "champion": {
            "before": old,
            "after": version.version if decision.verdict == "promote" else old,
        },
        "policy": asdict(policy),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "who": registry.user(),
    }


def _same_decision(
    store: Registry, version: Version, policy: gate.Policy, champion: Version | None
) -> dict[str, Any] | None:
    """The last decision about a version, where nothing that it stands on has changed."""
    for decision in store.decisions():
        if decision["candidate"]["digest"] == version.digest:
            in_place = decision["champion"]["after"] == (champion.version if champion else None)
            same = decision["policy"] == asdict(policy) and in_place
            return decision if same else None
    return None


def _loads_back(project: Project, store: Registry, version: Version) -> tuple[bool, str]:
    """Whether the registered model has the evaluated weights and gives the evaluated masks."""
    quiet.keras_loaded()
    from pipeline.network import backend

    backend.make_repeatable(project.params().train.seed)  # as in evaluate: the masks are compared
    model, own = store.load(version), _own_model(project)
    pairs = zip(model.get_weights(), own.get_weights(), strict=True)
    same_weights = all(np.array_equal(theirs, ours) for theirs, ours in pairs)
    table = files.read_table(project.path("patients"))
    patient = str(table.patient[table.split == "test"].iloc[0])
    rows = tables.accepted(project.path("manifest"), project.path("quarantine"))
    rows = tables.with_split(rows, project.path("splits"))
    own_rows = rows[(rows.patient == patient) & (rows.split == "test")]
    images = arrays.open_scan(project.path("scans"), patient).images
    wanted = project.params().evaluate
    rule = masks.Rule(wanted.threshold, wanted.views, wanted.keep, wanted.min_area_px)
    positions = own_rows.position.to_numpy()
    found = masks.of_scan(
        forms.steady(model), images, rule, model_name=model.name, positions=positions
    ).mask
    evaluated = predictions.load(project.path("predicted"), f"test/{patient}")
    same_masks = np.array_equal(found, evaluated)
    said = (
        f"Version {version.version}, loaded back from the registry, has "
        f"{'the' if same_weights else 'OTHER'} weights and gives "
        f"{'the' if same_masks else 'OTHER'} masks that were evaluated "
        f"({len(found)} slices of {patient})."
    )
    return same_weights and same_masks, said


def _own_model(project: Project) -> Any:
    quiet.keras_loaded()
    return model_files.load(project.path("model"))


def _answers(store: Registry, version: Version) -> tuple[bool, str]:
    """Whether a version loads and gives probabilities for a blank slice."""
    quiet.keras_loaded()
    from pipeline.network import inference

    model = store.load(version)
    shape = model.inputs[0].shape[1:]
    answer = inference.probabilities(model, np.zeros((1, *shape), np.uint8), batch=1)
    fine = bool(np.isfinite(answer).all() and (answer >= 0).all() and (answer <= 1).all())
    said = "gives probabilities" if fine else "gives values that are no probabilities"
    return fine, f"Version {version.version} loads from the registry and {said}."


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one level, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat


def _commit(root: Path) -> str:
    """The commit of the work tree, with `+changes` where it is not clean; empty outside git."""
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()
