"""A hand-written fake of the model registry."""

import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.adapters.model import model_files, scan_model
from pipeline.adapters.storage import csv_files
from pipeline.adapters.tracking.registration import VersionContents
from pipeline.adapters.tracking.versions import (
    CHAMPION,
    DIGEST_TAG,
    RECALLED_TAG,
    WITHDRAWN_TAG,
    Version,
)
from pipeline.domain.decisions import DecisionRecord
from pipeline.errors import GliaflowError


class FakeRegistry:
    """The methods of `tracking.registry.Registry`, in memory; models are files in a folder.

    changed: numbers of versions whose files are no longer those that were registered.
    """

    def __init__(self) -> None:
        self.changed: set[int] = set()
        self._folder = Path(tempfile.mkdtemp(prefix="gliaflow-fake-"))
        self._artifacts: dict[int, dict[str, Path]] = {}
        self._versions: dict[int, Version] = {}
        self._champion: int | None = None
        self._decisions: list[DecisionRecord] = []
        self._lock = threading.Lock()

    def versions(self) -> list[Version]:
        numbers = sorted(self._versions, reverse=True)
        return [self._with_alias(self._versions[number]) for number in numbers]

    def champion(self) -> Version | None:
        return None if self._champion is None else self.version(self._champion)

    def version(self, number: int) -> Version:
        if number not in self._versions:
            raise GliaflowError(f"the fake registry has no version {number}")
        return self._with_alias(self._versions[number])

    def register(self, digest: str, contents: Callable[[], VersionContents]) -> Version:
        for version in self.versions():
            if version.digest == digest:
                return version
        record, number = contents(), len(self._versions) + 1
        lineage = {f"gliaflow.{name}": value for name, value in asdict(record.lineage).items()}
        tags = {DIGEST_TAG: record.lineage.digest, **lineage, **record.tags}
        self.replace_model(number, record.network, record.post)
        self._artifacts[number] = {}
        for path in record.artifacts:
            copy = self._folder / str(number) / path.name
            copy.write_bytes(path.read_bytes())
            self._artifacts[number][path.name] = copy
        self._versions[number] = Version(number, (), tags, run_id=f"run {number}")
        return self.version(number)

    def replace_model(self, number: int, network: Any, post: Any) -> None:
        """Write the files of a version's model."""
        folder = self._folder / str(number)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        model_files.save_model(network, folder / scan_model.NETWORK_FILE)
        scan_model.write_settings(folder, network, post)

    def verify(self, version: Version) -> Path:
        if version.version in self.changed:
            raise GliaflowError(f"the files of version {version.version} were changed")
        return self._folder / str(version.version)

    def artifact(self, version: Version, name: str) -> Path:
        return self._artifacts[version.version][name]

    def splits(self, version: Version) -> pd.DataFrame:
        return csv_files.read_table(self.artifact(version, "splits.csv"))

    def move_alias(self, number: int) -> None:
        """Move the champion without a decision, as a person may in MLflow's pages."""
        self._champion = number

    def decisions(self) -> list[DecisionRecord]:
        return self._decisions[::-1]

    def full_decision(self, number: int) -> DecisionRecord:
        return self._decisions[number - 1]

    def settle_last(self) -> None:
        pass

    def carry_out(
        self, decide: Callable[[], DecisionRecord], *, say: Callable[[str], None] = print
    ) -> DecisionRecord:
        with self._lock:
            decision = decide()
            if decision.number is not None:
                return decision
            decision = replace(decision, number=len(self._decisions) + 1)
            if decision.action == "rollback" and decision.champion.before is not None:
                self.withdraw(decision.champion.before, "rolled back")
            elif decision.is_by_a_person:
                self.version(decision.candidate.version)
                tags = self._versions[decision.candidate.version].tags
                tags.pop(WITHDRAWN_TAG, None)  # type: ignore[attr-defined]
            self._champion = decision.champion.after
            self._decisions.append(decision)
            return decision

    def withdraw(self, number: int, why: str) -> None:
        version = self.version(number)
        self._versions[number] = replace(version, tags={**version.tags, WITHDRAWN_TAG: why})

    def mark_recalled(self, number: int, patient: str, *, is_shaped: bool) -> None:
        version = self.version(number)
        self._versions[number] = replace(version, tags={**version.tags, RECALLED_TAG: patient})
        if is_shaped:
            self.withdraw(number, f"trained on {patient}, who is recalled")

    def _with_alias(self, version: Version) -> Version:
        is_champion = version.version == self._champion
        return replace(version, aliases=(CHAMPION,) if is_champion else ())
