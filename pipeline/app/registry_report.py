"""The output of `gliaflow registry --json`. Other programs read it: fields are only added."""

import json
from collections.abc import Sequence
from typing import Any

from pipeline.adapters.tracking.registry import CHAMPION, TVERSKY_TAG, Version
from pipeline.domain.decisions import DecisionRecord


def as_json(versions: Sequence[Version], decisions: Sequence[DecisionRecord]) -> dict[str, Any]:
    """Return the champion's number, the versions and the decisions, newest first.

    Returns:
        `champion`: None if there is none. `tversky` of a version: `{}` if it carries
        none that can be read.
    """
    champion = next((v.version for v in versions if CHAMPION in v.aliases), None)
    return {
        "champion": champion,
        "versions": [_version(version) for version in versions],
        "decisions": [decision.to_json() for decision in decisions],
    }


def _version(version: Version) -> dict[str, Any]:
    return {
        "version": version.version,
        "aliases": list(version.aliases),
        "digest": version.digest,
        "tversky": _score(version),
        "tags": dict(version.tags),
    }


def _score(version: Version) -> dict[str, Any]:
    if version.optional_tversky is None:
        return {}
    score: dict[str, Any] = json.loads(version.tags[TVERSKY_TAG])
    return score
