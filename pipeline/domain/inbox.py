"""When a batch has arrived: rules on listings, values in and values out.

Does not know where the inbox is: a folder and a bucket list alike.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MARKER = "COMPLETE"


@dataclass(frozen=True)
class Item:
    """A file of a batch as it is listed. stamp: changes when its content does (time or ETag)."""

    path: str
    size: int
    stamp: str


@dataclass(frozen=True)
class Look:
    """What a batch looked like, and since when (seconds since 1970) it has looked so."""

    signature: str
    since: float


def signature(listing: Iterable[Item]) -> str:
    """Equal for equal listings, whatever their order."""
    lines = sorted(f"{item.path}\t{item.size}\t{item.stamp}" for item in listing)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def look(listing: Iterable[Item], before: Look | None, *, now: float) -> Look:
    """The next look at a batch: the time goes on only while nothing changes."""
    seen = signature(listing)
    return before if before is not None and before.signature == seen else Look(seen, now)


def has_arrived(listing: Iterable[Item], seen: Look, *, now: float, settle_seconds: float) -> bool:
    """Whether a batch is complete: it holds the marker, or has not changed for a while."""
    names = {item.path for item in listing}
    return MARKER in names or now - seen.since >= settle_seconds


def batch_digest(files: Mapping[str, str]) -> str:
    """Names the content of a batch, whatever the batch is called.

    Args:
        files: `patient/file` to SHA-256 of its content.
    """
    lines = sorted(f"{name}\t{digest}" for name, digest in files.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def data_digest(source: str, batches: Iterable[str]) -> str:
    """Names all data there is: where the first scans came from, and the digests of batches."""
    return hashlib.sha256("\n".join([source, *sorted(batches)]).encode()).hexdigest()
