"""The inbox: where batches of scans are dropped, and how one is taken in, whole or not at all.

A batch that cannot be taken stays where it is, with the reason, and is tried again at the
next look.
"""

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

from pipeline.adapters import batches, buckets, files, locks, sources
from pipeline.domain import inbox as rules
from pipeline.domain.inbox import Item, Look
from pipeline.errors import GliaflowError

State = Literal["settling", "taken", "known", "refused"]
SPARE_BYTES = 2**30  # left free on the disk after a batch was taken
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Entry:
    """A batch as the last look found it. signature: of the listing that was decided on."""

    batch: str
    state: State
    note: str
    when: str
    signature: str = ""


class Place(Protocol):
    """An inbox. source: of a batch, as `sources.copy` takes it."""

    def listings(self) -> dict[str, list[Item]]: ...

    def source(self, batch: str) -> str: ...


class Folder:
    """A folder of this machine, `<batch>/<patient>/*.tif`."""

    def __init__(self, root: Path):
        self._root = root

    def listings(self) -> dict[str, list[Item]]:
        try:
            folders = [path for path in sorted(self._root.iterdir()) if path.is_dir()]
            return {
                folder.name: [self._item(folder, path) for path in sources.below(folder)]
                for folder in folders
                if not folder.name.startswith(".")
            }
        except FileNotFoundError as error:
            if self._root.is_dir():  # a file was renamed while it was looked at: it still changes
                return {}
            raise GliaflowError(
                f"the inbox {self._root} is not there; make the folder, or set watch.source in "
                "params.yaml"
            ) from error
        except OSError as error:
            raise GliaflowError(
                f"the inbox {self._root} cannot be read ({error.strerror}); make the folder, or set "
                "watch.source in params.yaml"
            ) from error

    def source(self, batch: str) -> str:
        return str(self._root / batch)

    def _item(self, folder: Path, path: Path) -> Item:
        found = path.stat()
        return Item(str(path.relative_to(folder)), found.st_size, str(found.st_mtime_ns))


class Bucket:
    """`s3://bucket/prefix`, below it `<batch>/<patient>/*.tif`."""

    def __init__(self, url: str, endpoint_url: str | None):
        self._url = f"s3://{url.removeprefix('s3://').rstrip('/')}"
        self._endpoint_url = endpoint_url

    def listings(self) -> dict[str, list[Item]]:
        found: dict[str, list[Item]] = {}
        for key, size, etag in buckets.contents(self._url, self._endpoint_url):
            batch, *inside = PurePosixPath(key).parts or ("",)
            if inside and not key.endswith("/"):
                item = Item(str(PurePosixPath(*inside)), size, etag)
                found.setdefault(batch, []).append(item)
        return found

    def source(self, batch: str) -> str:
        return f"{self._url}/{batch}"


def open_place(source: str, endpoint_url: str | None, root: Path) -> Place:
    """The inbox that `watch.source` names; a relative folder is meant from `root`."""
    if source.startswith("s3://"):
        return Bucket(source, endpoint_url)
    return Folder(root / Path(source).expanduser())


class Inbox:
    """Batches on their way in.

    Args:
        place: where they are dropped.
        incoming: `data/incoming`, where they are taken to.
        state: folder for what must be remembered between looks, and for half copies.
        lock: held while `incoming` changes; whoever reads it in one go holds it too.
    """

    def __init__(
        self, place: Place, *, incoming: Path, state: Path, lock: Path, endpoint_url: str | None,
        max_gib: float, settle_seconds: float, clock: Callable[[], float] = time.time,
    ):  # fmt: skip
        self._place = place
        self._incoming = incoming
        self._state = state
        self._lock = lock
        self._endpoint_url = endpoint_url
        self._max_gib = max_gib
        self._settle_seconds = settle_seconds
        self._clock = clock

    def look(self) -> list[Entry]:
        """Look once at every batch and take in those that have arrived.

        Returns:
            An entry for every batch that is in the inbox.

        Raises:
            GliaflowError: the inbox itself cannot be read; what was known is kept.
        """
        # Two looks at once would share a half copy.
        with locks.alone(self._state / "look.lock", what="inbox: another look runs"):
            return self._look()

    def _look(self) -> list[Entry]:
        listings = self._place.listings()
        looks, entries = self._looks(), {entry.batch: entry for entry in self.entries()}
        for batch, listing in listings.items():
            now = self._clock()
            looks[batch] = rules.look(listing, looks.get(batch), now=now)
            before = entries.get(batch)
            done = before is not None and before.state in ("taken", "known")
            if done and before.signature == looks[batch].signature:
                continue
            entries[batch] = self._consider(batch, listing, looks[batch], now)
            self._remember(looks, entries)
        looks = {batch: seen for batch, seen in looks.items() if batch in listings}
        self._remember(looks, entries)
        return [entries[batch] for batch in listings]

    def entries(self) -> list[Entry]:
        """Every batch that was ever looked at, by name."""
        stored = self._stored().get("entries", {})
        return [Entry(**stored[name]) for name in sorted(stored)]

    def data_digest(self, source: str) -> str | None:
        """Names the data with all batches taken in so far; None without any."""
        taken = [n.digest for n in map(batches.read_note, self._folders()) if n is not None]
        return rules.data_digest(source, taken) if taken else None

    def _consider(self, batch: str, listing: list[Item], seen: Look, now: float) -> Entry:
        when = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")

        def entry(state: State, note: str) -> Entry:
            return Entry(batch, state, note, when, seen.signature)

        if not rules.has_arrived(listing, seen, now=now, settle_seconds=self._settle_seconds):
            left = self._settle_seconds - (now - seen.since)
            return entry(
                "settling",
                f"{len(listing)} files; taken if unchanged for {max(left, 1):.0f} s more",
            )
        try:
            return entry(*self._take(batch, listing, seen.signature, when))
        except GliaflowError as error:
            return entry("refused", str(error))
        except OSError as error:
            return entry("refused", f"it could not be copied ({error.strerror or error})")

    def _take(self, batch: str, listing: list[Item], seen: str, when: str) -> tuple[State, str]:
        """Copy a batch aside, name its content, and move it in as a whole."""
        if NAME.fullmatch(batch) is None or batch == batches.SOURCE or batch.endswith(".dvc"):
            raise GliaflowError(
                f"the name {batch!r} cannot be a batch's; expected letters, digits, dots, dashes, "
                "not source and no .dvc at its end: rename the folder"
            )
        self._has_room(batch, listing)
        aside = self._aside(batch, seen)
        count = sources.copy(
            self._place.source(batch), aside, endpoint_url=self._endpoint_url,
            max_gib=self._max_gib, resume=True,
        )  # fmt: skip
        if rules.signature(self._place.listings().get(batch, [])) != seen:
            shutil.rmtree(aside)
            return "settling", "it changed while it was copied; looked at again next time"
        digest = rules.batch_digest(
            {f"{p.parent.name}/{p.name}": files.sha256(p) for p in sorted(aside.glob("*/*"))}
        )
        with locks.alone(self._lock, what="inbox: the incoming scans are being read"):
            for folder in self._folders():
                note = batches.read_note(folder)
                if note is not None and note.digest == digest:
                    shutil.rmtree(aside)
                    return "known", f"the same scans as batch {folder.name}, which is in already"
            batches.write_note(aside, batches.Note(when, digest))
            target = self._free_name(batch)
            aside.rename(target)
        patients = len([path for path in target.iterdir() if path.is_dir()])
        return "taken", f"{patients} patients, {count} files, as {target.name}"

    def _aside(self, batch: str, seen: str) -> Path:
        """Where a listing is copied to; what other listings of the batch left there is removed."""
        folder = self._state / "aside"
        own = folder / f"{batch}-{seen[:12]}"
        for path in folder.glob("*"):
            if path.name[:-13] == batch and path != own:
                shutil.rmtree(path)
        for cut_off in own.rglob(".*"):
            cut_off.unlink()
        return own

    def _has_room(self, batch: str, listing: list[Item]) -> None:
        self._state.mkdir(parents=True, exist_ok=True)
        wanted = sum(item.size for item in listing)
        free = shutil.disk_usage(self._state).free
        if free < wanted + SPARE_BYTES:
            raise GliaflowError(
                f"the batch {batch} needs {wanted / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
                "free (1 is kept); make room, it is tried again"
            )

    def _free_name(self, batch: str) -> Path:
        names = [batch, *(f"{batch}-{n}" for n in range(2, 10_000))]
        return next(self._incoming / n for n in names if not (self._incoming / n).exists())

    def _folders(self) -> list[Path]:
        return sorted(path for path in self._incoming.iterdir() if path.is_dir())

    def _stored(self) -> dict[str, Any]:
        try:
            return json.loads((self._state / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _looks(self) -> dict[str, Look]:
        return {batch: Look(**seen) for batch, seen in self._stored().get("looks", {}).items()}

    def _remember(self, looks: dict[str, Look], entries: dict[str, Entry]) -> None:
        files.write_json(
            self._state / "state.json",
            {
                "looks": {batch: asdict(seen) for batch, seen in looks.items()},
                "entries": {batch: asdict(entry) for batch, entry in entries.items()},
            },
        )
