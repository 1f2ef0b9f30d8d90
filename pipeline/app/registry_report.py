"""What `gliaflow registry` shows. Other programs read its JSON: fields are only added."""

import datetime
import json
from collections.abc import Sequence
from typing import Any

from pipeline.adapters.tracking.versions import CHAMPION, TVERSKY_TAG, Version
from pipeline.domain import decisions as records
from pipeline.domain.decisions import DecisionRecord
from pipeline.errors import GliaflowError


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
        "withdrawn": version.withdrawn,
        "tags": dict(version.tags),
    }


def _score(version: Version) -> dict[str, Any]:
    if version.optional_tversky is None:
        return {}
    score: dict[str, Any] = json.loads(version.tags[TVERSKY_TAG])
    return score


def warnings(versions: Sequence[Version], decisions: Sequence[DecisionRecord]) -> list[str]:
    """Say what the tables do not explain: an alias that no decision moved."""
    champion = next((v.version for v in versions if CHAMPION in v.aliases), None)
    recorded = decisions[0].champion.after if decisions else None
    if champion == recorded:
        return []
    return [
        f"The alias {CHAMPION} is at version {champion or 'none'} and the last decision left it at "
        f"{recorded or 'none'}: it was moved without gliaflow."
    ]


def parse_time(text: str) -> str:
    """Return a time as decisions note it: ISO 8601, UTC, to the second.

    Args:
        text: a date, which means its end, or a time; without an offset it is UTC.

    Raises:
        GliaflowError: it is neither.
    """
    try:
        if len(text) == len("2026-05-12"):
            day = datetime.date.fromisoformat(text)
            end = datetime.time(23, 59, 59, tzinfo=datetime.UTC)
            return datetime.datetime.combine(day, end).isoformat()
        time = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise GliaflowError(
            f"--at is {text!r}; expected a date such as 2026-05-12, or a time such as "
            "2026-05-12T14:30:00+02:00"
        ) from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.UTC)
    return time.astimezone(datetime.UTC).isoformat(timespec="seconds")


def champion_then(decisions: Sequence[DecisionRecord], when: str) -> dict[str, Any]:
    """Say which version was the champion at a time, and by which decision.

    Args:
        when: as `parse_time` returns it.
    """
    decision = records.champion_at(decisions, when)
    return {
        "at": when,
        "champion": decision.champion.after if decision else None,
        "decision": decision.to_json() if decision else None,
    }
