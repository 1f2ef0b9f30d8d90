"""The inbox: import each batch of scans that was dropped, whole or not at all.

A batch that cannot be imported stays in the inbox, with the reason, and is tried again at the
next look.
"""

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.adapters.process import locks
from pipeline.adapters.scans import batches, sources
from pipeline.adapters.scans.inbox_places import Place
from pipeline.adapters.scans.limits import Limits
from pipeline.adapters.scans.listing import describe_skipped
from pipeline.adapters.storage import files, json_files
from pipeline.domain import arrival
from pipeline.domain.arrival import ListedFile, Observation
from pipeline.errors import GliaflowError

# settling: still changing, or too recent. taken: imported. known: imported before under another
# name. refused: cannot be imported.
State = Literal["settling", "taken", "known", "refused"]
SPARE_BYTES = 2**30  # stays free on the disk after an import
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LATEST_TIME = 1e12  # seconds since 1970; a remembered look that is further away is none
SIGNATURE_CHARACTERS = 12  # of a signature, in the name of a partial copy


@dataclass(frozen=True)
class Entry:
    """State of a batch after the last look.

    note: explains the state. when: time of the look that set it, ISO 8601, UTC. signature: of
    the listing that it refers to.
    """

    batch: str
    state: State
    note: str
    when: str
    signature: str = ""


class Inbox:
    """Imports the batches of a place into `data/incoming`.

    Args:
        place: where batches are dropped.
        incoming: `data/incoming`, the folder to import into.
        state: folder for what is remembered between looks, and for partial copies.
        lock: file; its lock is held while `incoming` changes. Whoever reads all of `incoming`
            holds it too.
        endpoint_url: of an S3 server other than Amazon's.
        limits: what a batch may hold at most.
        settle_seconds: how long a batch must stay unchanged before it is imported.
        clock: returns seconds since 1970.
    """

    def __init__(
        self, place: Place, *, incoming: Path, state: Path, lock: Path, endpoint_url: str | None,
        limits: Limits, settle_seconds: float,
        clock: Callable[[], float] = time.time,
    ):  # fmt: skip
        self._place = place
        self._incoming = incoming
        self._state = state
        self._lock = lock
        self._endpoint_url = endpoint_url
        self._limits = limits
        self._settle_seconds = settle_seconds
        self._clock = clock

    def look(self) -> list[Entry]:
        """Check every batch once and import those that have arrived.

        Returns:
            An entry for every batch that is in the inbox now.

        Raises:
            GliaflowError: the place cannot be read; what is remembered stays as it was.
        """
        # Two looks at the same time would write to the same partial copy.
        with locks.hold(self._state / "look.lock", what="inbox: another look is running"):
            return self._look()

    def _look(self) -> list[Entry]:
        listings = self._place.listings()
        observations = self._observations()
        entries = {entry.batch: entry for entry in self.entries()}
        for batch, listing in listings.items():
            now = self._clock()
            observation = arrival.observe(listing, observations.get(batch), now=now)
            observations[batch] = observation
            if not _is_imported(entries.get(batch), observation):
                entries[batch] = self._decide(batch, listing, observation, now)
                self._save(observations, entries)
        # A batch that was removed keeps its entry; if it comes back, it has to settle again.
        present = {batch: observations[batch] for batch in observations if batch in listings}
        self._save(present, entries)
        return [entries[batch] for batch in listings]

    def entries(self) -> list[Entry]:
        """Return an entry for every batch that was ever seen, sorted by name."""
        entries = map(_restored_entry, self._stored("entries").values())
        return sorted(
            (entry for entry in entries if entry is not None), key=lambda entry: entry.batch
        )

    def data_digest(self, source: str) -> str | None:
        """Return the digest of the data with all imported batches; None if there are none.

        Args:
            source: `fetch.source`, where the first scans come from.
        """
        digests = [note.digest for note in self._notes()]
        return arrival.data_digest(source, digests) if digests else None

    def _decide(
        self, batch: str, listing: list[ListedFile], observation: Observation, now: float
    ) -> Entry:
        """Import a batch if it has arrived; return its new entry either way."""
        when = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        state: State
        if not arrival.has_arrived(
            listing, observation, now=now, settle_seconds=self._settle_seconds
        ):
            left = max(self._settle_seconds - (now - observation.since), 1)
            state = "settling"
            note = f"{len(listing)} files; imported if unchanged for {left:.0f} s more"
        else:
            try:
                state, note = self._import(batch, observation.signature, now)
            except GliaflowError as error:
                state, note = "refused", str(error)
            except OSError as error:
                state, note = "refused", f"it could not be copied ({error.strerror or error})"
        return Entry(batch, state, note, when, observation.signature)

    def _import(self, batch: str, signature: str, now: float) -> tuple[State, str]:
        """Copy a batch to a partial copy, then move it into `incoming` as a whole.

        Args:
            signature: of its listing. If the batch has another one after copying, it changed.
            now: time of the look, seconds since 1970.

        Returns:
            The new state, and a note that explains it.
        """
        _check_name(batch)
        copy = self._partial_copy(batch, signature)
        copied = sources.copy_source(
            self._place.source(batch), copy, endpoint_url=self._endpoint_url,
            limits=self._limits, resume=True, check_space=partial(self._check_free_space, batch),
        )  # fmt: skip
        if arrival.signature(self._place.listings().get(batch, [])) != signature:
            shutil.rmtree(copy)
            return "settling", "it changed while it was copied; checked again at the next look"
        digest = arrival.batch_digest(
            {f"{p.parent.name}/{p.name}": files.sha256(p) for p in sorted(copy.glob("*/*"))}
        )
        skipped = describe_skipped(copied.skipped)
        end = skipped and f"; {skipped}"
        with locks.hold(self._lock, what="inbox: data/incoming is being read"):
            known = self._with_digest(digest)
            if known is not None:
                shutil.rmtree(copy)
                name = known.name
                return "known", f"the same scans as batch {name}, which was imported before{end}"
            arrived = arrival.time_of_arrival(now, [note.arrived for note in self._notes()])
            batches.write_note(copy, batches.BatchNote(arrived, digest))
            target = self._free_path(batch)
            copy.rename(target)
        patients = sum(path.is_dir() for path in target.iterdir())
        return "taken", f"{patients} patients, {copied.files} files, as {target.name}{end}"

    def _partial_copy(self, batch: str, signature: str) -> Path:
        """Return the folder to copy a listing to; it may hold an earlier, interrupted copy of it.

        Copies of other listings of the batch, and files that were cut off, are removed.
        """
        folder = self._state / "aside"
        copy = folder / f"{batch}-{signature[:SIGNATURE_CHARACTERS]}"
        for path in folder.glob("*"):
            if path.name[: -SIGNATURE_CHARACTERS - 1] == batch and path != copy:
                shutil.rmtree(path)
        for cut_off in copy.rglob(".*"):
            if not cut_off.is_dir():
                cut_off.unlink()
        return copy

    def _check_free_space(self, batch: str, needed: int) -> None:
        """Make sure that a batch of `needed` bytes can be copied."""
        self._state.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._state).free
        if free < needed + SPARE_BYTES:
            raise GliaflowError(
                f"the batch {batch} needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
                "free, of which 1 must stay free; make room, and it is tried again at the next look"
            )

    def _free_path(self, batch: str) -> Path:
        """Return a path in `incoming` that does not exist yet: `<batch>`, `<batch>-2`, ..."""
        names = [batch, *(f"{batch}-{number}" for number in range(2, 10_000))]
        return next(self._incoming / name for name in names if not (self._incoming / name).exists())

    def _with_digest(self, digest: str) -> Path | None:
        """Return the first imported batch with this content; None if there is none."""
        for folder in self._imported():
            note = batches.read_note(folder)
            if note is not None and note.digest == digest:
                return folder
        return None

    def _imported(self) -> list[Path]:
        return sorted(path for path in self._incoming.iterdir() if path.is_dir())

    def _notes(self) -> list[batches.BatchNote]:
        notes = [batches.read_note(folder) for folder in self._imported()]
        return [note for note in notes if note is not None]

    def _observations(self) -> dict[str, Observation]:
        restored = {
            batch: _restored_observation(fields) for batch, fields in self._stored("looks").items()
        }
        return {batch: seen for batch, seen in restored.items() if seen is not None}

    def _stored(self, key: str) -> dict[str, Any]:
        """Read what is remembered under a key; empty if there is nothing, or it has no such shape."""
        try:
            stored = json.loads((self._state / "state.json").read_text(encoding="utf-8"))
            json.dumps(stored, ensure_ascii=False).encode()  # text that could not be saved again
        except (OSError, ValueError, RecursionError):
            return {}
        section = stored.get(key) if isinstance(stored, dict) else None
        return section if isinstance(section, dict) else {}

    def _save(self, observations: dict[str, Observation], entries: dict[str, Entry]) -> None:
        json_files.write_json(
            self._state / "state.json",
            {
                "looks": {batch: asdict(seen) for batch, seen in observations.items()},
                "entries": {batch: asdict(entry) for batch, entry in entries.items()},
            },
        )


def _restored_entry(fields: Any) -> Entry | None:
    """Return a remembered entry; None if its fields are not those of an entry."""
    try:
        entry = Entry(**fields)
    except TypeError:
        return None
    is_text = all(isinstance(value, str) for value in asdict(entry).values())
    return entry if is_text and entry.state in get_args(State) else None


def _restored_observation(fields: Any) -> Observation | None:
    """Return a remembered observation; None if its fields are not those of an observation."""
    try:
        seen = Observation(**fields)
    except TypeError:
        return None
    is_time = type(seen.since) in (int, float) and abs(seen.since) < LATEST_TIME
    return seen if is_time and isinstance(seen.signature, str) else None


def _is_imported(entry: Entry | None, observation: Observation) -> bool:
    """Return whether a batch needs no decision: its content, unchanged, was imported before."""
    return (
        entry is not None
        and entry.state in ("taken", "known")
        and entry.signature == observation.signature
    )


def _check_name(batch: str) -> None:
    # DVC writes <batch>.dvc beside a batch.
    if NAME.fullmatch(batch) is None or batch == batches.SOURCE or batch.endswith(".dvc"):
        raise GliaflowError(
            f"{batch!r} cannot be the name of a batch; expected 1 to 100 letters, digits, dots, "
            f"dashes and underscores, the first a letter or digit, not {batches.SOURCE} and not "
            "ending in .dvc: rename the folder"
        )
