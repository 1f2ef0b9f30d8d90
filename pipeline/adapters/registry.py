"""The MLflow registry: runs, model versions, the alias `champion`, and decisions for good.

Versions are found by the digest of their lineage, so publishing the same model again finds
it and makes nothing new. Does not judge: it moves the alias where it is told to.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.adapters import curves, locks
from pipeline.domain.lineage import Lineage
from pipeline.errors import GliaflowError
from pipeline.params import Register

if TYPE_CHECKING:
    import keras

CHAMPION = "champion"
DIGEST_TAG = "gliaflow.digest"
DECISION_TAG = "gliaflow.decision"


@dataclass(frozen=True)
class Version:
    """A registered model. tags hold its lineage and its test scores."""

    version: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    run_id: str

    @property
    def digest(self) -> str:
        return self.tags.get(DIGEST_TAG, "")

    @property
    def test_tversky(self) -> dict[str, float]:
        """mean, low, high and patients of the test Tversky, as it was registered."""
        return json.loads(self.tags.get("gliaflow.test_tversky", "{}"))


@dataclass(frozen=True)
class Material:
    """What a version is made of, besides its weights.

    history, manifest: tables as the stages wrote them; manifest with the column `split`.
    """

    lineage: Lineage
    training: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: pd.DataFrame
    manifest: pd.DataFrame
    artifacts: tuple[Path, ...]
    tags: Mapping[str, str]


class Registry:
    """A model's versions at one MLflow server or database.

    Args:
        settings: the section `register` of params.yaml.
        root: folder that a relative database or artifact path is meant from.
    """

    def __init__(self, settings: Register, root: Path):
        import mlflow

        self._name = settings.model
        self._experiment = settings.experiment
        self._uri = curves.tracking_uri(settings)
        self._lock = root / ".local" / "registry.lock"
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # its tables, made at first use
        mlflow.set_tracking_uri(self._uri)
        self._client = mlflow.MlflowClient(self._uri)

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        with self._sentences():
            found = self._client.search_model_versions(f"name='{self._name}'")
            if not found:
                return []
            aliases = self._client.get_registered_model(self._name).aliases
        named = [
            Version(
                int(one.version),
                tuple(sorted(a for a, v in aliases.items() if str(v) == str(one.version))),
                dict(one.tags),
                one.run_id or "",
            )
            for one in found
        ]
        return sorted(named, key=lambda version: -version.version)

    def champion(self) -> Version | None:
        return next((one for one in self.versions() if CHAMPION in one.aliases), None)

    def version(self, number: int) -> Version:
        """
        Raises:
            GliaflowError: there is no such version.
        """
        for one in self.versions():
            if one.version == number:
                return one
        known = ", ".join(str(one.version) for one in self.versions()) or "none"
        raise GliaflowError(f"{self._name} has no version {number}; there are: {known}")

    def register(self, material: Material, load_model: Any) -> Version:
        """The version of this lineage, registered now or found.

        Args:
            load_model: called without arguments for the Keras model, only where it is needed.
        """
        digest = material.lineage.digest
        # Registering is not idempotent by itself: one publisher at a time on this machine.
        with locks.alone(self._lock), self._sentences():
            known = self._by_digest(digest)
            if known is not None:
                return known
            run_id = self._record(material)
            self._log_version(material, run_id, load_model())
            return self._by_digest(digest)  # type: ignore[return-value]

    def load(self, version: Version) -> "keras.Model":
        """The model of a version, loaded as anyone would load it."""
        import mlflow

        with self._sentences():
            return mlflow.keras.load_model(f"models:/{self._name}/{version.version}")

    def crown(self, version: Version) -> None:
        """Make a version the one in use."""
        with self._sentences():
            self._client.set_registered_model_alias(self._name, CHAMPION, str(version.version))

    def decisions(self) -> list[dict[str, Any]]:
        """All decisions about this model, newest first; they are only ever added."""
        with self._sentences():
            experiment = self._client.get_experiment_by_name(self._decisions_name)
            if experiment is None:
                return []
            runs = self._client.search_runs(
                [experiment.experiment_id], order_by=["attributes.start_time DESC"]
            )
        return [json.loads(run.data.tags[DECISION_TAG]) for run in runs]

    def record_decision(self, decision: dict[str, Any]) -> None:
        with self._sentences():
            experiment = curves.experiment_id(self._client, self._decisions_name)
            number = decision["candidate"]["version"]
            run = self._client.create_run(
                experiment,
                run_name=f"version {number}: {decision['verdict']}",
                tags={DECISION_TAG: json.dumps(decision), "gliaflow.version": str(number)},
            )
            self._client.log_dict(run.info.run_id, decision, "decision.json")
            self._client.set_terminated(run.info.run_id)

    @property
    def _decisions_name(self) -> str:
        return f"{self._experiment}-decisions"

    def _by_digest(self, digest: str) -> Version | None:
        return next((one for one in self.versions() if one.digest == digest), None)

    def _record(self, material: Material) -> str:
        """The MLflow run of a version: the one that training opened, or a new one."""
        client = self._client
        digest = material.lineage.digest
        run = curves.find_run(client, self._experiment, curves.TRAINING_TAG, material.training)
        if run is None or run.data.tags.get(DIGEST_TAG, digest) != digest:
            run = client.create_run(
                curves.experiment_id(client, self._experiment),
                tags={curves.TRAINING_TAG: material.training},
            )
        run_id = run.info.run_id
        client.set_tag(run_id, DIGEST_TAG, digest)
        client.update_run(run_id, name=f"model {digest[:8]}")
        for name, value in material.params.items():
            client.log_param(run_id, name, value)
        for name, value in material.metrics.items():
            client.log_metric(run_id, name, value)
        curves.send(client, run_id, material.history.to_dict("records"))
        for path in material.artifacts:
            client.log_artifact(run_id, str(path))
        self._log_inputs(run_id, material)
        return run_id

    def _log_inputs(self, run_id: str, material: Material) -> None:
        import mlflow
        from mlflow.entities import DatasetInput, InputTag

        inputs = []
        for split, rows in material.manifest.groupby("split"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about integer columns
                data = mlflow.data.from_pandas(
                    rows.drop(columns="split"),
                    source="data/manifest.csv",
                    name=str(split),
                    digest=material.lineage.data[:16],
                )
                entity = data._to_mlflow_entity()
            inputs.append(DatasetInput(entity, [InputTag("mlflow.data.context", str(split))]))
        self._client.log_inputs(run_id, inputs)

    def _log_version(self, material: Material, run_id: str, model: "keras.Model") -> None:
        import mlflow

        with mlflow.start_run(run_id=run_id):
            logged = mlflow.keras.log_model(
                model,
                name=self._name,
                signature=_signature(model),
                pip_requirements=_requirements(),
            )
        if not self._client.search_registered_models(f"name='{self._name}'"):
            self._client.create_registered_model(self._name)
        # As late as can be: a version appears with all its tags, or not at all.
        self._client.create_model_version(
            self._name,
            source=logged.model_uri,
            run_id=run_id,
            model_id=logged.model_id,
            tags={
                DIGEST_TAG: material.lineage.digest,
                **{f"gliaflow.{k}": v for k, v in asdict(material.lineage).items()},
                **material.tags,
            },
        )

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        import sqlalchemy
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
            raise GliaflowError(
                f"MLflow at {_without_password(self._uri)} refused: "
                f"{' '.join(str(error).split())[:300]}; check that it runs and "
                "register.tracking_uri in params.yaml (or MLFLOW_TRACKING_URI)"
            ) from error


def _signature(model: "keras.Model") -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def spec(tensor: Any, name: str) -> TensorSpec:
        shape = tuple(-1 if side is None else side for side in tensor.shape)
        return TensorSpec(np.dtype(tensor.dtype), shape, name=name)

    (source,), (target,) = model.inputs, model.outputs
    return ModelSignature(
        inputs=Schema([TensorSpec(spec(source, "").type, spec(source, "").shape)]),
        outputs=Schema([TensorSpec(spec(target, "").type, spec(target, "").shape)]),
    )


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("keras", "numpy", "tensorflow")]


def _without_password(uri: str) -> str:
    scheme, mark, rest = uri.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def user() -> str:
    """Who decides: GLIAFLOW_USER, else the name of the account."""
    import getpass

    try:
        return os.environ.get("GLIAFLOW_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
