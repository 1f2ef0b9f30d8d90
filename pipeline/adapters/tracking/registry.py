"""The MLflow model registry: versions, the alias `champion`, and the decisions that move it.

Versions are found by the digest of their lineage: publishing a model again finds its version
and creates nothing. Judges no model: callers decide where the alias points.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pipeline.adapters.process import locks
from pipeline.adapters.storage import csv_files, files, system_errors
from pipeline.adapters.tracking import decision_log, mlflow_client, registration
from pipeline.adapters.tracking.decision_log import DecisionLog
from pipeline.adapters.tracking.registration import VersionContents
from pipeline.adapters.tracking.turns import Turns
from pipeline.adapters.tracking.versions import (
    CHAMPION,
    FILES_TAG,
    RECALLED_TAG,
    WITHDRAWN_TAG,
    MissingFilesError,
    Version,
)
from pipeline.domain.decisions import DecisionRecord
from pipeline.domain.redaction import redact
from pipeline.errors import GliaflowError
from pipeline.params import Register

SPLIT_TAG = "gliaflow.split"
SPLITS_FILE = "splits.csv"


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
        self._client = mlflow_client.PatientClient(mlflow.MlflowClient(self._uri))
        self._log = DecisionLog(self._client, f"{section.model}-decisions")

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

    def register(self, digest: str, contents: Callable[[], VersionContents]) -> Version:
        """Return the version with a lineage digest; register it if there is none.

        Args:
            contents: called only if the version must be registered.
        """
        # MLflow would register the same model twice: one publisher at a time on this machine.
        with locks.hold(self._lock), self._as_gliaflow_errors():
            known = self._by_digest(digest)
            if known is not None:
                return known
            registration.log_version(
                self._client, contents(), model=self._name, experiment=self._experiment
            )
            registered = self._by_digest(digest)
        if registered is None:
            raise GliaflowError(
                f"MLflow lists no version with digest {digest[:12]} just after it was registered; "
                "run the same command again"
            )
        return registered

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
        folder = self._download(f"models:/{self._name}/{version.version}", version, "model files")
        if registration.files_digest(folder) != expected:
            raise GliaflowError(
                f"the model files of version {version.version} in {folder} are not those that were "
                "registered; nothing was loaded: restore them from a backup, or promote another "
                "version"
            )
        return folder

    def artifact(self, version: Version, name: str) -> Path:
        """Return a file that the run of a version was logged with, on this machine.

        Raises:
            GliaflowError: there is none.
        """
        return self._download(f"runs:/{version.run_id}/{name}", version, name)

    def splits(self, version: Version) -> pd.DataFrame:
        """Return the split that a version was trained on, after comparing its digest.

        Raises:
            GliaflowError: the file is missing or was changed.
        """
        path = self.artifact(version, SPLITS_FILE)
        if files.sha256(path) != version.tags.get(SPLIT_TAG):
            raise GliaflowError(
                f"{path} is not the split that version {version.version} was registered with; "
                "restore it from a backup, or promote another version"
            )
        return csv_files.read_table(path)

    def decisions(self) -> list[DecisionRecord]:
        """Return all decisions on this model, newest first; records are only ever added.

        Raises:
            GliaflowError: a record cannot be read.
        """
        with self._as_gliaflow_errors():
            return self._log.decisions()

    def full_decision(self, number: int) -> DecisionRecord:
        """Return a decision with the scores of patients.

        Raises:
            GliaflowError: there is no such decision, or it cannot be read.
        """
        with self._as_gliaflow_errors():
            return self._log.full(number)

    def carry_out(
        self, decide: Callable[[], DecisionRecord], *, say: Callable[[str], None] = print
    ) -> DecisionRecord:
        """Record a decision and move the alias as it says, alone among all machines.

        The record is written first, then the alias moves, then the record is marked as done. A
        process that dies in between leaves a state that the next one settles.

        Args:
            decide: called while no other decision can be made; returns a decision, or one that
                is recorded already, which changes nothing.
            say: receives a message if another process holds the turn.

        Returns:
            The decision with its number.
        """
        with self._as_gliaflow_errors(), self._turns().hold(say=say) as turn:
            decision = decide()
            if decision.number is not None:
                return decision
            decision = replace(decision, number=turn.number)
            turn.check()
            run_id = self._log.write_intent(decision)
            if decision.moves_champion:
                turn.check()
                self._move_alias(decision.champion.after)
            self._complete(run_id, decision)
        return decision

    def settle_last(self) -> None:
        """Settle a decision whose process died; does nothing if there is none."""
        with self._as_gliaflow_errors():
            number = self._log.next_number()
            if self._log.unsettled(number) is None:
                return
            with self._turns().hold(say=lambda _: None):
                pass

    def _turns(self) -> Turns:
        log = self._log
        return Turns(
            self._client, self._name,
            next_number=log.next_number, settle=self._settle, void=log.write_void,
        )  # fmt: skip

    def _settle(self, number: int) -> None:
        """Complete a decision whose alias was moved; void any other that was begun."""
        champion = self.champion()  # before the record is read: then this is what it left
        begun = self._log.unsettled(number)
        if begun is None:
            return
        run_id, decision = begun
        if decision.champion.after == (champion.version if champion else None):
            self._complete(run_id, decision)
        else:
            self._log.finish(run_id, decision_log.VOID)

    def _move_alias(self, number: int | None) -> None:
        if number is None:
            self._client.delete_registered_model_alias(self._name, CHAMPION)
        else:
            self._client.set_registered_model_alias(self._name, CHAMPION, str(number))

    def _complete(self, run_id: str, decision: DecisionRecord) -> None:
        """Set or remove the mark of withdrawn versions, then mark the decision as done."""
        before, candidate = decision.champion.before, decision.candidate.version
        if decision.action == "rollback" and before is not None:
            self.withdraw(before, f"rolled back by {decision.who}: {decision.why}")
        elif decision.is_by_a_person and self.version(candidate).withdrawn is not None:
            self._client.delete_model_version_tag(self._name, str(candidate), WITHDRAWN_TAG)
        self._log.finish(run_id, decision_log.DONE)

    def withdraw(self, number: int, why: str) -> None:
        """Mark a version: it is never promoted again without a person."""
        with self._as_gliaflow_errors():
            self._client.set_model_version_tag(self._name, str(number), WITHDRAWN_TAG, why)

    def mark_recalled(self, number: int, patient: str, *, is_shaped: bool) -> None:
        """Note on a version that it touched a withdrawn patient.

        Args:
            is_shaped: the patient shaped the model: it is withdrawn, too.
        """
        known = self.version(number).tags.get(RECALLED_TAG, "")
        patients = sorted({*filter(None, known.split(", ")), patient})
        with self._as_gliaflow_errors():
            self._client.set_model_version_tag(
                self._name, str(number), RECALLED_TAG, ", ".join(patients)
            )
        if is_shaped:
            self.withdraw(number, f"trained on {patient}, who is recalled")

    def _by_digest(self, digest: str) -> Version | None:
        return next((version for version in self.versions() if version.digest == digest), None)

    def _download(self, uri: str, version: Version, what: str) -> Path:
        """Return local files of a version; for a local store they are the store's own."""
        import mlflow

        try:
            with self._as_gliaflow_errors():
                return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        except OSError as error:
            if error.errno in system_errors.FULL:
                raise
            raise MissingFilesError(
                f"the {what} of version {version.version} are missing ({error}); restore them from "
                "a backup, or promote another version"
            ) from error

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


def current_user() -> str:
    """Return who decides: GLIAFLOW_USER, else the name of the account, else `unknown`."""
    import getpass

    try:
        return os.environ.get("GLIAFLOW_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
