"""What a source holds: tell its scans from what is skipped, by names alone.

Does not know where the names come from: a folder, a zip and a bucket look the same here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from pipeline.adapters.scans import batches
from pipeline.adapters.scans.paths import printable
from pipeline.domain import arrival, scans

CLINICAL = "data.csv"
TIF = {".tif", ".tiff"}
# Files that are no scans and yet have their place. Their names are no patient's: the folder of
# such a patient would be replaced by the file.
KNOWN = {CLINICAL, batches.NOTE, arrival.MARKER}
TOP = PurePosixPath()
# Parts of a path in a source. Each folder on the way is remembered: some thousand paths of some
# thousand parts, which fit into a small zip, would fill the memory.
MAX_DEPTH = 32
SHOWN = 10  # skipped files and folders that a message names


@dataclass(frozen=True)
class SourceEntry:
    """A file or folder as a source lists it.

    inside: path in the source. kind: `other` is a pipe, a socket, a device or a link to nothing.
    where: full path, for messages. size: in bytes. fingerprint: equal for equal content, within
    one source.
    """

    inside: PurePosixPath
    kind: Literal["file", "folder", "other"]
    where: str = ""
    size: int = 0
    fingerprint: Callable[[], str] = str
    read: Callable[[], bytes] = bytes


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: a patient's tif, or the clinical table, whose patient is empty.

    inside: path in the source, of `depth` parts. The rest is as in `SourceEntry`.
    """

    patient: str
    name: str
    where: str
    inside: str
    depth: int
    size: int
    fingerprint: Callable[[], str]
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Skipped:
    """A file or folder of a source that is not copied.

    path: in the source, fit to print. patient: whom it belongs to, or would.
    """

    path: str
    reason: str
    patient: str


@dataclass(frozen=True)
class Listing:
    """The scans of a source, and what is skipped in it."""

    files: list[SourceFile]
    skipped: tuple[Skipped, ...]


def describe_skipped(skipped: Iterable[Skipped]) -> str:
    """Name what is skipped, at most ten of it; empty if nothing is."""
    names = [f"{item.path} ({item.reason})" for item in skipped]
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    what = "folder or file" if len(names) == 1 else "folders or files"
    return f"{len(names)} {what} skipped: {', '.join(names[:SHOWN])}{more}"


def sort_entries(entries: Iterable[SourceEntry], *, patient_at_top: str = "") -> Listing:
    """Tell the scans of a source from what is skipped, and name folders without scans.

    Args:
        patient_at_top: whose files lie directly at the top; empty: nobody's.
    """
    found: list[SourceFile] = []
    skipped: dict[PurePosixPath, Skipped] = {}
    folders = {TOP}  # all whose names can be used
    used = {TOP}  # those that hold scans, or something that is named itself
    for entry in entries:
        inside = entry.inside
        if not inside.parts or _is_added(inside):
            continue
        bad = _too_deep(entry) or _first_bad_name(entry, folders)
        fault = _bad_path(bad) if bad else _fault(entry, patient_at_top)
        if fault is not None:
            skipped[bad or inside] = fault
            _add_with_parents(bad or inside, used)
        elif entry.kind == "file" and (_is_tif(inside) or inside.name in KNOWN):
            _add_with_parents(inside.parent, used)
            if _is_tif(inside) or inside.name == CLINICAL:
                found.append(_source_file(entry, patient_at_top))
    named = [*skipped.values(), *_without_scans(folders - used)]
    return Listing(found, tuple(sorted(named, key=lambda item: item.path)))


def _too_deep(entry: SourceEntry) -> PurePosixPath | None:
    """Return the deepest folder that is allowed on the way to an entry below it; else None."""
    allowed = MAX_DEPTH - 1 if entry.kind == "folder" else MAX_DEPTH
    parts = entry.inside.parts
    return PurePosixPath(*parts[:MAX_DEPTH]) if len(parts) > allowed else None


def _first_bad_name(entry: SourceEntry, folders: set[PurePosixPath]) -> PurePosixPath | None:
    """Return the uppermost path, down to an entry, whose name cannot be used.

    Args:
        folders: whose names can be used; those above the entry are added.
    """
    folder = entry.inside if entry.kind == "folder" else entry.inside.parent
    unknown = []
    for path in (folder, *folder.parents):
        if path in folders:
            break
        unknown.append(path)
    for path in reversed(unknown):
        if scans.name_fault(path.name):
            return path
        folders.add(path)
    return entry.inside if scans.name_fault(entry.inside.name) else None


def _add_with_parents(path: PurePosixPath, to: set[PurePosixPath]) -> None:
    """Add a path, and the folders above it up to one that is there already."""
    for folder in (path, *path.parents):
        if folder in to:
            break
        to.add(folder)


def _source_file(entry: SourceEntry, patient_at_top: str) -> SourceFile:
    inside = entry.inside
    return SourceFile(
        (inside.parent.name or patient_at_top) if _is_tif(inside) else "",
        inside.name,
        where=entry.where,
        inside=str(inside),
        depth=len(inside.parts),
        size=entry.size,
        fingerprint=entry.fingerprint,
        read=entry.read,
    )


def _is_tif(path: PurePosixPath) -> bool:
    return path.suffix.lower() in TIF


def _is_added(path: PurePosixPath) -> bool:
    """Whether macOS added a file or folder, rather than a person."""
    return "__MACOSX" in path.parts or path.name == ".DS_Store" or path.name.startswith("._")


def _bad_path(path: PurePosixPath) -> Skipped:
    patient = path.parent.name or path.name
    reason = scans.name_fault(path.name) or "nested too deeply"
    return Skipped(printable(path), reason, printable(patient))


def _fault(entry: SourceEntry, patient_at_top: str) -> Skipped | None:
    """Return why an entry cannot be copied; None if it can, or if it is no scan."""
    inside = entry.inside
    patient, reason = inside.parent.name or patient_at_top, ""
    if entry.kind == "other" and (_is_tif(inside) or inside.name == CLINICAL):
        reason = "not a regular file"
    elif entry.kind == "other" and not inside.suffix and not inside.name.startswith("."):
        patient, reason = inside.name, "neither a file nor a folder"
    elif entry.kind == "file" and _is_tif(inside):
        reason = _fault_of_patient(patient)
    return Skipped(str(inside), reason, printable(patient)) if reason else None


def _fault_of_patient(patient: str) -> str:
    if not patient:
        return "not in the folder of a patient"
    if patient in KNOWN:
        return f"{patient} cannot be the name of a patient"
    fault = scans.name_fault(patient)
    return fault and f"the folder above: {fault}"


def _without_scans(folders: set[PurePosixPath]) -> list[Skipped]:
    """Name the uppermost of some folders that hold no tif; hidden ones are no patient's."""
    return [
        Skipped(str(folder), "no tif", folder.name)
        for folder in folders
        if folder.parent not in folders and not any(part.startswith(".") for part in folder.parts)
    ]
