"""A registered version, and the tags that it carries."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.domain.decisions import Score
from pipeline.errors import GliaflowError

CHAMPION = "champion"
DIGEST_TAG = "gliaflow.digest"
TVERSKY_TAG = "gliaflow.test_tversky"
FILES_TAG = "gliaflow.model_files"
WITHDRAWN_TAG = "gliaflow.withdrawn"
RECALLED_TAG = "gliaflow.recalled"


class MissingFilesError(GliaflowError):
    """Files of a version are gone."""


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

    @property
    def withdrawn(self) -> str | None:
        """Why the version must not be promoted without a person; None if it may be."""
        return self.tags.get(WITHDRAWN_TAG)
