"""Decide when a batch of scans has arrived, from listings alone.

Does not know where the inbox is: listings of a folder and of a bucket look the same here.
"""

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MARKER = "COMPLETE"


@dataclass(frozen=True)
class ListedFile:
    """A file of a batch as listed.

    path: relative to the batch.
    size: in bytes.
    stamp: modification time or ETag; changes when the content does.
    """

    path: str
    size: int
    stamp: str


@dataclass(frozen=True)
class Observation:
    """The listing of a batch and how long it has been unchanged.

    signature: of the listing, see `signature`.
    since: seconds since 1970 of the first look that saw this listing.
    """

    signature: str
    since: float


def signature(listing: Iterable[ListedFile]) -> str:
    """Return a digest of a listing; the order of its files does not count."""
    lines = sorted(f"{file.path}\t{file.size}\t{file.stamp}" for file in listing)
    # A file's name need not be valid UTF-8.
    return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()


def observe(
    listing: Iterable[ListedFile], previous: Observation | None, *, now: float
) -> Observation:
    """Return the observation after another look at a batch.

    Args:
        previous: the last observation; None at the first look.
        now: seconds since 1970.

    Returns:
        `previous` if the listing is unchanged, else an observation that starts now. It also
        starts now if `previous` lies in the future: the clock was set back, and the batch
        would not settle before that time comes again.
    """
    current = signature(listing)
    if previous is not None and previous.signature == current and previous.since <= now:
        return previous
    return Observation(current, now)


def has_arrived(
    listing: Iterable[ListedFile], observation: Observation, *, now: float, settle_seconds: float
) -> bool:
    """Return whether a batch is complete.

    It is complete as soon as it holds the file `COMPLETE` at its top level, or after
    `settle_seconds` without a change.
    """
    paths = {file.path for file in listing}
    return MARKER in paths or now - observation.since >= settle_seconds


def time_of_arrival(now: float, earlier: Iterable[str]) -> str:
    """Return the time to note for a batch that is imported now, ISO 8601, UTC.

    The order of arrival decides which of two scans is used. So the time is later than that of
    every batch imported before, also if the clock was set back: then by one second.

    Args:
        now: seconds since 1970.
        earlier: times in the notes of the other batches; what is no time does not count.
    """
    times = [datetime.fromtimestamp(now, UTC)]
    for text in earlier:
        with suppress(ValueError, OverflowError):  # no time, or the last one that there is
            times.append(_instant(text) + timedelta(seconds=1))
    return max(times).isoformat(timespec="seconds")


def _instant(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def batch_digest(files: Mapping[str, str]) -> str:
    """Return a digest of the content of a batch; the name of the batch does not count.

    Args:
        files: `patient/file` to SHA-256 of its content.
    """
    lines = sorted(f"{name}\t{digest}" for name, digest in files.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def data_digest(source: str, batches: Iterable[str]) -> str:
    """Return a digest of all data.

    Args:
        source: where the first scans came from.
        batches: digests of the batches; their order does not count.
    """
    return hashlib.sha256("\n".join([source, *sorted(batches)]).encode()).hexdigest()
