"""A hand-written fake of the model registry."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.adapters.tracking.registry import CHAMPION, DIGEST_TAG, Version, VersionContents
from pipeline.domain.decisions import DecisionRecord
from pipeline.errors import GliaflowError


class FakeRegistry:
    """The methods of `tracking.registry.Registry`, in memory.

    models: version number to the model that `load` returns; tests may replace one.
    changed: numbers of versions whose files are no longer those that were registered.
    """

    def __init__(self) -> None:
        self.models: dict[int, Any] = {}
        self.changed: set[int] = set()
        self._versions: dict[int, Version] = {}
        self._champion: int | None = None
        self._decisions: list[DecisionRecord] = []

    def versions(self) -> list[Version]:
        numbers = sorted(self._versions, reverse=True)
        return [self._with_alias(self._versions[number]) for number in numbers]

    def champion(self) -> Version | None:
        return None if self._champion is None else self.version(self._champion)

    def version(self, number: int) -> Version:
        if number not in self._versions:
            raise GliaflowError(f"the fake registry has no version {number}")
        return self._with_alias(self._versions[number])

    def register(
        self,
        digest: str,
        contents: Callable[[], VersionContents],
        load_model: Callable[[], Any],
    ) -> Version:
        for version in self.versions():
            if version.digest == digest:
                return version
        record, number = contents(), len(self._versions) + 1
        lineage = {f"gliaflow.{name}": value for name, value in asdict(record.lineage).items()}
        tags = {DIGEST_TAG: record.lineage.digest, **lineage, **record.tags}
        self.models[number] = load_model()
        self._versions[number] = Version(number, (), tags, run_id=f"run {number}")
        return self.version(number)

    def load(self, version: Version) -> Any:
        self.verify(version)
        return self.models[version.version]

    def verify(self, version: Version) -> Path:
        if version.version in self.changed:
            raise GliaflowError(f"the files of version {version.version} were changed")
        return Path()

    def set_champion(self, version: Version) -> None:
        self._champion = self.version(version.version).version

    def decisions(self) -> list[DecisionRecord]:
        return self._decisions[::-1]

    def record_decision(self, decision: DecisionRecord) -> None:
        self._decisions.append(decision)

    def _with_alias(self, version: Version) -> Version:
        is_champion = version.version == self._champion
        return replace(version, aliases=(CHAMPION,) if is_champion else ())
