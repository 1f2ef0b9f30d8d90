"""The MLflow model registry: runs, versions, the alias `champion`, and decision records.

Versions are found by the digest of their lineage: publishing a model again finds its version
and creates nothing. Judges no model: callers decide where the alias points.
"""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.adapters.process import locks, native_logs
from pipeline.adapters.storage import files, system_errors
from pipeline.adapters.tracking import mlflow_client
from pipeline.domain import lineage
from pipeline.domain.decisions import DecisionRecord, Score
from pipeline.domain.lineage import Lineage
from pipeline.domain.redaction import redact
from pipeline.errors import GliaflowError
from pipeline.params import Register

if TYPE_CHECKING:
    import keras

CHAMPION = "champion"
DIGEST_TAG = "gliaflow.digest"
DECISION_TAG = "gliaflow.decision"
TVERSKY_TAG = "gliaflow.test_tversky"
FILES_TAG = "gliaflow.model_files"
WRITTEN_BY_DOWNLOADS = "registered_model_meta"  # MLflow adds it to a folder it hands out


@dataclass(frozen=True)
class Version:
    """A registered model. tags: its lineage and its test scores."""

    version: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    run_id: str

    @property
    def digest(self) -> str:
        """Digest of the lineage; empty for a version that something else registered."""
        return self.tags.get(DIGEST_TAG, "")

    @property
    def test_tversky(self) -> Score:
        """The test Tversky that the version was registered with.

        Raises:
            GliaflowError: it carries none; something else than gliaflow registered it.
        """
        score = self.optional_tversky
        if score is None:
            raise GliaflowError(
                f"version {self.version} carries no test Tversky; expected a version that "
                "`gliaflow run` registered"
            )
        return score

    @property
    def optional_tversky(self) -> Score | None:
        """The test Tversky; None for a version that carries none, or an unreadable one."""
        try:
            return Score.from_json(json.loads(self.tags.get(TVERSKY_TAG, "{}")))
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class VersionContents:
    """Everything that a version is registered with, except its model.

    training: digest of the training, which names its MLflow run.
    params, metrics: flat, by dotted name.
    history, manifest: tables as the stages wrote them; manifest with a column `split`.
    artifacts: files to store. tags: of the version, beside its lineage.
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
    """The versions of a model at one MLflow server or database.

    Args:
        section: `register` of params.yaml.
        root: folder that a relative SQLite path is relative to.
        lock: held while a version is registered. A file beside it remembers which SQLite
            database was used, so that one that went missing is not replaced by an empty one.

    Raises:
        GliaflowError: the SQLite database is damaged, may not be written, was there before and
            is gone, or came with a checkout that was copied or moved.
    """

    def __init__(self, section: Register, root: Path, *, lock: Path):
        import mlflow

        self._name = section.model
        self._experiment = section.experiment
        self._uri = mlflow_client.tracking_uri(section, root)
        self._lock = lock
        _refuse_other_database(
            mlflow_client.sqlite_path(self._uri), root, lock.with_name("registry.path")
        )
        mlflow_client.prepare(self._uri)
        mlflow.set_tracking_uri(self._uri)
        self._client = mlflow.MlflowClient(self._uri)

    def versions(self) -> list[Version]:
        """Return all versions, newest first."""
        with self._as_gliaflow_errors():
            entities = self._client.search_model_versions(f"name='{self._name}'")
            if not entities:
                return []
            aliases = self._client.get_registered_model(self._name).aliases
        versions = [
            Version(
                int(entity.version),
                tuple(sorted(a for a, v in aliases.items() if str(v) == str(entity.version))),
                dict(entity.tags),
                entity.run_id or "",
            )
            for entity in entities
        ]
        return sorted(versions, key=lambda version: -version.version)

    def champion(self) -> Version | None:
        """Return the version with the alias `champion`, or None."""
        return next((v for v in self.versions() if CHAMPION in v.aliases), None)

    def version(self, number: int) -> Version:
        """Return the version with a number.

        Raises:
            GliaflowError: there is no such version.
        """
        versions = self.versions()
        for version in versions:
            if version.version == number:
                return version
        known = ", ".join(str(version.version) for version in versions) or "none"
        raise GliaflowError(f"{self._name} has no version {number}; there are: {known}")

    def register(
        self,
        digest: str,
        contents: Callable[[], VersionContents],
        load_model: Callable[[], "keras.Model"],
    ) -> Version:
        """Return the version with a lineage digest; register it if there is none.

        Args:
            contents, load_model: called only if the version must be registered.
        """
        # MLflow would register the same model twice: one publisher at a time on this machine.
        with locks.hold(self._lock), self._as_gliaflow_errors():
            known = self._by_digest(digest)
            if known is not None:
                return known
            to_register = contents()
            run_id = self._log_run(to_register)
            self._log_version(to_register, run_id, load_model())
            registered = self._by_digest(digest)
        if registered is None:
            raise GliaflowError(
                f"MLflow lists no version with digest {digest[:12]} just after it was registered; "
                "run the same command again"
            )
        return registered

    def load(self, version: Version) -> "keras.Model":
        """Load the model of a version, after its files were verified.

        Raises:
            GliaflowError: see `verify`.
        """
        import mlflow

        folder = self.verify(version)
        native_logs.import_keras()  # before MLflow does, without TensorFlow's banners
        with self._as_gliaflow_errors():
            return mlflow.keras.load_model(str(folder))

    def verify(self, version: Version) -> Path:
        """Compare the files of a registered model with the digest it was registered with.

        Returns:
            The folder of the verified files on this machine.

        Raises:
            GliaflowError: files are missing or were changed, or the version carries no digest.
        """
        expected = version.tags.get(FILES_TAG)
        if not expected:
            raise GliaflowError(
                f"version {version.version} carries no digest of its files; expected one that "
                "this release registered: register the model again with `gliaflow run`"
            )
        folder = self._download(f"models:/{self._name}/{version.version}", str(version.version))
        if _files_digest(folder) != expected:
            raise GliaflowError(
                f"the model files of version {version.version} in {folder} are not those that were "
                "registered; nothing was loaded: restore them from a backup, or promote another "
                "version"
            )
        return folder

    def _download(self, uri: str, name: str) -> Path:
        """Return a local folder with the files of a model; for a local store it is the store."""
        import mlflow

        try:
            with self._as_gliaflow_errors():
                return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        except OSError as error:
            raise GliaflowError(
                f"the model files of version {name} are missing ({error}); restore them from a "
                "backup, or promote another version"
            ) from error

    def set_champion(self, version: Version) -> None:
        """Move the alias `champion` to a version."""
        with self._as_gliaflow_errors():
            self._client.set_registered_model_alias(self._name, CHAMPION, str(version.version))

    def decisions(self) -> list[DecisionRecord]:
        """Return all decisions on this model, newest first; records are only ever added.

        Raises:
            GliaflowError: a record cannot be read.
        """
        with self._as_gliaflow_errors():
            experiment = self._client.get_experiment_by_name(self._decisions_name)
            if experiment is None:
                return []
            runs = mlflow_client.all_runs(
                self._client, experiment.experiment_id, order_by="attributes.start_time DESC"
            )
        return [_decision(run) for run in runs]

    def record_decision(self, decision: DecisionRecord) -> None:
        """Add a decision record."""
        values, number = decision.to_json(), decision.candidate.version
        with self._as_gliaflow_errors():
            experiment = mlflow_client.experiment_id(self._client, self._decisions_name)
            run = self._client.create_run(
                experiment,
                start_time=self._next_start(experiment),
                run_name=f"version {number}: {decision.verdict}",
                tags={DECISION_TAG: json.dumps(values), "gliaflow.version": str(number)},
            )
            self._client.log_dict(run.info.run_id, values, "decision.json")
            self._client.set_terminated(run.info.run_id)

    def _next_start(self, experiment: str) -> int:
        """Return the start of the next decision's run, in ms since 1970.

        Decisions are read in this order: it never goes back, even if the clock was set back.
        """
        newest = self._client.search_runs(
            [experiment], order_by=["attributes.start_time DESC"], max_results=1
        )
        starts = [int(run.info.start_time) for run in newest]
        return max([int(time.time() * 1000), *(start + 1 for start in starts)])

    @property
    def _decisions_name(self) -> str:
        return f"{self._experiment}-decisions"

    def _by_digest(self, digest: str) -> Version | None:
        return next((version for version in self.versions() if version.digest == digest), None)

    def _log_run(self, contents: VersionContents) -> str:
        """Log everything but the model to the MLflow run of the training; return the run's id.

        A new run is created if the training logged none, or its run belongs to another version.
        """
        client = self._client
        digest = contents.lineage.digest
        run = mlflow_client.find_run(
            client, self._experiment, mlflow_client.TRAINING_TAG, contents.training
        )
        if run is None or run.data.tags.get(DIGEST_TAG, digest) != digest:
            run = client.create_run(
                mlflow_client.experiment_id(client, self._experiment),
                tags={mlflow_client.TRAINING_TAG: contents.training},
            )
        run_id: str = run.info.run_id
        client.set_tag(run_id, DIGEST_TAG, digest)
        client.update_run(run_id, name=f"model {digest[:8]}")
        for name, value in contents.params.items():
            client.log_param(run_id, name, value)
        for name, value in contents.metrics.items():
            client.log_metric(run_id, name, value)
        mlflow_client.log_epochs(client, run_id, contents.history.to_dict("records"))
        for path in contents.artifacts:
            client.log_artifact(run_id, str(path))
        self._log_inputs(run_id, contents)
        return run_id

    def _log_inputs(self, run_id: str, contents: VersionContents) -> None:
        """Log the slices of each split as an input data set of a run."""
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        inputs = []
        for split, rows in contents.manifest.groupby("split"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about integer columns
                data = from_pandas(
                    rows.drop(columns="split"),
                    source="data/manifest.csv",
                    name=str(split),
                    digest=contents.lineage.data[:16],
                )
                entity = data._to_mlflow_entity()
            inputs.append(DatasetInput(entity, [InputTag("mlflow.data.context", str(split))]))
        self._client.log_inputs(run_id, inputs)

    def _log_version(self, contents: VersionContents, run_id: str, model: "keras.Model") -> None:
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
        # Last: a version then appears with its model and all its tags, or not at all.
        self._client.create_model_version(
            self._name,
            source=logged.model_uri,
            run_id=run_id,
            model_id=logged.model_id,
            tags={
                DIGEST_TAG: contents.lineage.digest,
                FILES_TAG: _files_digest(self._download(logged.model_uri, "just logged")),
                **{f"gliaflow.{k}": v for k, v in asdict(contents.lineage).items()},
                **contents.tags,
            },
        )

    @contextmanager
    def _as_gliaflow_errors(self) -> Iterator[None]:
        """Turn errors of MLflow and its database into one that a user can fix."""
        import sqlalchemy
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
            database = mlflow_client.sqlite_path(self._uri)
            if database is not None and system_errors.says_full(str(error)):
                raise GliaflowError(system_errors.full_disk(database)) from None
            raise GliaflowError(
                redact(
                    f"MLflow at {self._uri} refused: {' '.join(str(error).split())[:300]}; check "
                    "that it runs and register.tracking_uri in params.yaml (or MLFLOW_TRACKING_URI)"
                )
            ) from None  # the cause may hold a password


def _refuse_other_database(database: Path | None, root: Path, record: Path) -> None:
    """Remember the SQLite database in use; refuse one that is not what it seems.

    That is one that was there before and is gone, or one that came here with its checkout:
    MLflow notes absolute paths, so its models' files are still those of the other folder.
    """
    if database is None:
        return
    known = record.read_text(encoding="utf-8") if record.exists() else ""
    if not database.exists() and known == str(database):
        raise GliaflowError(
            f"the registry {database} was there before and is gone; restore it from a backup, or "
            f"delete {record} to start with an empty one"
        )
    if database.exists() and known not in ("", str(database)) and database.is_relative_to(root):
        inside = str(database.relative_to(root))
        if known.endswith(f"/{inside}"):
            raise GliaflowError(
                f"this checkout was copied or moved from {known.removesuffix(f'/{inside}')}, where "
                f"{database} keeps the files of its models; move it back, or delete {inside} and "
                f"{record.relative_to(root)} to start with an empty registry"
            )
    if known != str(database):  # not written again: a full disk is no reason not to read
        files.write_text(record, str(database))


def _files_digest(folder: Path) -> str:
    """Digest of the names and contents of all files of a registered model."""
    names = {
        path.relative_to(folder).as_posix(): files.sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != WRITTEN_BY_DOWNLOADS
    }
    return lineage.digest_of_mapping(names)


def _decision(run: Any) -> DecisionRecord:
    """Read the decision record of an MLflow run."""
    try:
        return DecisionRecord.from_json(json.loads(run.data.tags[DECISION_TAG]))
    except (KeyError, TypeError, ValueError) as error:
        raise GliaflowError(
            f"the decision record of MLflow run {run.info.run_id} cannot be read ({error!r}); "
            "expected one that gliaflow wrote: look at the run's tag gliaflow.decision"
        ) from error


def _signature(model: "keras.Model") -> Any:
    """Describe input and output of a model, without names, for MLflow."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(tensor: Any) -> Schema:
        shape = tuple(-1 if side is None else side for side in tensor.shape)
        return Schema([TensorSpec(np.dtype(tensor.dtype), shape)])

    (source,), (target,) = model.inputs, model.outputs
    return ModelSignature(inputs=schema(source), outputs=schema(target))


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("keras", "numpy", "tensorflow")]


def current_user() -> str:
    """Return who decides: GLIAFLOW_USER, else the name of the account, else `unknown`."""
    import getpass

    try:
        return os.environ.get("GLIAFLOW_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
