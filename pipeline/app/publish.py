"""Register a trained model, decide on it, and promote it.

Reads the files of the stages and may run again at any time: a model is registered once per
lineage digest, and the same decision is recorded once.
"""

import datetime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adapters.checkout import commands, provenance
from pipeline.adapters.checkout.project import Project
from pipeline.adapters.model import checkpoints, model_files, predictions, runtimes
from pipeline.adapters.process import locks, native_logs
from pipeline.adapters.report import html_page
from pipeline.adapters.scans import arrays
from pipeline.adapters.storage import csv_files, files, json_files, stage_tables
from pipeline.adapters.tracking import registry
from pipeline.adapters.tracking.registry import Registry, Version, VersionContents
from pipeline.app import leakage
from pipeline.app.open_registry import open_registry
from pipeline.domain import gate, postprocessing
from pipeline.domain.decisions import Candidate, DecisionRecord
from pipeline.errors import GliaflowError
from pipeline.params import Gate

BUSY = "another decision is being recorded"
SECRET = {"register_": {"tracking_uri"}}  # the address may hold a password
ARTIFACTS = ("manifest", "quarantine", "splits", "history", "scores", "patients", "page")


@dataclass(frozen=True)
class Publisher:
    """Registers and judges models of one checkout.

    project: snapshot of the checkout. registry: opened once for all steps.
    """

    project: Project
    registry: Registry

    def register(self) -> Version:
        """Return the version of the model in the work tree; register it if it is new.

        Raises:
            GliaflowError: params.yaml was edited since the run started, or a file of a stage is
                missing.
        """
        self.project.refuse_changed_params()
        digest = provenance.project_lineage(self.project).digest
        return self.registry.register(digest, self._contents, self._trained_model)

    def decide(self, version: Version) -> DecisionRecord:
        """Judge a version that was just registered from the work tree; change nothing.

        Returns:
            The earlier decision on this version, if the policy is the same, the champion has
            not changed since, and the registered files are still those that were judged.

        Raises:
            GliaflowError: the registered files are missing or were changed.
        """
        policy = policy_of(self.project.params.gate)
        champion = self.registry.champion()
        earlier = self._same_decision(version, policy, champion)
        if earlier is not None:
            self.registry.verify(version)
            return earlier
        loads_back, sentence = self._loads_back(version)
        return self._judge(version, champion, policy, loads_back=loads_back, loaded=sentence)

    def apply(self, decision: DecisionRecord) -> DecisionRecord:
        """Move the alias as decided, record the decision, and show it on the report.

        Raises:
            GliaflowError: the champion has changed since the decision was made.
        """
        project = self.project
        with locks.hold(project.local.decision_lock, what=BUSY):
            if decision not in self.registry.decisions():
                self._refuse_other_champion(decision)
                self._move_and_record(decision)
        json_files.write_json(decision_path(project), decision.to_json())
        page = project.path("page")
        if page.exists():
            text = html_page.with_decision(
                page.read_text(encoding="utf-8"),
                decision.to_json(),
                leakage=leakage.stored_result(project),
            )
            files.write_text(project.path("index"), text)
        return decision

    def promote_version(
        self, number: int, *, override: str | None = None, by: str | None = None
    ) -> DecisionRecord:
        """Promote a registered version, if the gate allows it or a person overrides the gate.

        Args:
            number: of the version.
            override: reason to promote against the gate; None: the gate decides.
            by: name of the person who answers for the override.

        Returns:
            The decision; it is recorded whatever the verdict.

        Raises:
            GliaflowError: there is no such version, or it carries no test Tversky.
        """
        version = self.registry.version(number)
        policy = policy_of(self.project.params.gate)
        loads_back, sentence = self._gives_probabilities(version)
        # From the champion before to the record: the next decision begins where this one ends.
        with locks.hold(self.project.local.decision_lock, what=BUSY):
            decision = self._judge(
                version,
                self.registry.champion(),
                policy,
                loads_back=loads_back,
                loaded=sentence,
                override=override,
                by=by,
            )
            self._move_and_record(decision)
        return decision

    def _judge(
        self,
        version: Version,
        champion: Version | None,
        policy: gate.Policy,
        *,
        loads_back: bool,
        loaded: str,
        override: str | None = None,
        by: str | None = None,
    ) -> DecisionRecord:
        score = version.test_tversky
        decision = gate.decide(
            score.interval(), policy=policy, loads_back=loads_back, loaded=loaded
        )
        if override is not None:
            decision = replace(decision, verdict="promote")
        return DecisionRecord.of(
            decision,
            candidate=Candidate(version.version, version.digest, score),
            before=champion.version if champion else None,
            policy=policy,
            when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            who=by or registry.current_user(),
            override=override,
        )

    def _refuse_other_champion(self, decision: DecisionRecord) -> None:
        champion = self.registry.champion()
        number = champion.version if champion else None
        if number != decision.champion.before:
            raise GliaflowError(
                f"the champion changed from version {decision.champion.before or 'none'} to "
                f"{number or 'none'} while version {decision.candidate.version} was judged; "
                "nothing was promoted: run the same command again"
            )

    def _move_and_record(self, decision: DecisionRecord) -> None:
        if decision.verdict == "promote":
            self.registry.set_champion(self.registry.version(decision.candidate.version))
        self.registry.record_decision(decision)

    def _same_decision(
        self, version: Version, policy: gate.Policy, champion: Version | None
    ) -> DecisionRecord | None:
        """Return the last decision on a version, if neither policy nor champion has changed."""
        number = champion.version if champion else None
        for decision in self.registry.decisions():
            if decision.candidate.digest == version.digest:
                is_valid = decision.policy == policy and decision.champion.after == number
                return decision if is_valid else None
        return None

    def _contents(self) -> VersionContents:
        """Read everything that a new version is registered with from the files of the stages."""
        project = self.project
        native_logs.import_keras()
        scores = json_files.read_json(project.path("scores"))
        rows = stage_tables.accepted_slices(project.path("manifest"), project.path("quarantine"))
        return VersionContents(
            lineage=provenance.project_lineage(project),
            training=checkpoints.training_digest(
                project.params,
                code=project.code_digest("train"),
                manifest=project.path("manifest"),
                splits=project.path("splits"),
            ),
            params=_flat(project.params.model_dump(mode="json", by_alias=True, exclude=SECRET)),
            metrics=_numbers(scores),
            history=csv_files.read_table(project.path("history")),
            manifest=stage_tables.join_splits(rows, project.path("splits")),
            artifacts=(
                project.root / "params.yaml",
                project.root / "dvc.lock",
                *(project.path(key) for key in ARTIFACTS),
            ),
            tags={
                registry.TVERSKY_TAG: json_files.as_json(scores["test"]["tversky"]),
                "gliaflow.commit": _commit(project),
            },
        )

    def _trained_model(self) -> Any:
        native_logs.import_keras()
        return model_files.load_model(self.project.path("model"))

    def _loads_back(self, version: Version) -> tuple[bool, str]:
        """Compare the registered model with the evaluated one: its weights, and masks.

        Returns:
            Whether both are equal, and a sentence for the decision.
        """
        native_logs.import_keras()
        from pipeline.network import backend

        backend.make_repeatable(self.project.params.train.seed)  # masks are compared exactly
        model, evaluated = self.registry.load(version), self._trained_model()
        weights = zip(model.get_weights(), evaluated.get_weights(), strict=True)
        same_weights = all(np.array_equal(loaded, expected) for loaded, expected in weights)
        patient, slices, same_masks = self._same_masks(model)
        sentence = (
            f"Version {version.version}, loaded back from the registry, has "
            f"{'the' if same_weights else 'OTHER'} weights and gives "
            f"{'the' if same_masks else 'OTHER'} masks that were evaluated "
            f"({slices} slices of {patient})."
        )
        return same_weights and same_masks, sentence

    def _same_masks(self, model: Any) -> tuple[str, int, bool]:
        """Segment the first test patient and compare with the masks that `evaluate` wrote.

        Returns:
            The patient, the number of slices, and whether all masks are equal.
        """
        project = self.project
        patients = csv_files.read_table(project.path("patients"))
        patient = str(patients.patient[patients.split == "test"].iloc[0])
        rows = stage_tables.accepted_slices(project.path("manifest"), project.path("quarantine"))
        rows = stage_tables.join_splits(rows, project.path("splits"))
        rows = rows[(rows.patient == patient) & (rows.split == "test")]
        mask = postprocessing.segment_scan(
            runtimes.reference_predictor(model),
            arrays.open_scan(project.path("scans"), patient).images,
            postprocessing.PostProcessing.from_params(project.params.evaluate),
            model_name=model.name,
            positions=rows.position.to_numpy(),
        ).mask
        evaluated = predictions.load_mask(project.path("predicted"), f"test/{patient}")
        return patient, len(mask), bool(np.array_equal(mask, evaluated))

    def _gives_probabilities(self, version: Version) -> tuple[bool, str]:
        """Load a version and run it on a black slice.

        Returns:
            Whether the output is finite and in [0, 1], and a sentence for the decision.
        """
        native_logs.import_keras()
        from pipeline.network import inference

        model = self.registry.load(version)
        shape = model.inputs[0].shape[1:]
        values = inference.probabilities(model, np.zeros((1, *shape), np.uint8), batch=1)
        passed = bool(np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all())
        output = "gives probabilities" if passed else "gives values that are no probabilities"
        return passed, f"Version {version.version} loads from the registry and {output}."


def open_publisher(project: Project) -> Publisher:
    return Publisher(project, open_registry(project))


def policy_of(section: Gate) -> gate.Policy:
    return gate.Policy(**section.model_dump())


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
    """Return the commit of the work tree, with `+changes` if it is dirty; empty outside git."""
    try:
        head = commands.git(project.root, "rev-parse", "HEAD")
        changes = commands.git(project.root, "status", "--porcelain")
    except GliaflowError:
        return ""
    return head + ("+changes" if changes else "")


def decision_path(project: Project) -> Path:
    """Return the path of decision.json, in the folder of the report that shows it."""
    return project.path("index").with_name("decision.json")
