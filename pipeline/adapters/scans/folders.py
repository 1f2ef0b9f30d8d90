"""List a folder of scans: everything below it, links included."""

import errno
import heapq
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from pipeline.adapters.scans import regular_files
from pipeline.adapters.scans.listing import MAX_DEPTH, Listing, SourceEntry, sort_entries
from pipeline.adapters.scans.paths import access_errors
from pipeline.domain import scans


def list_folder(root: Path) -> Listing:
    """List the scans of a folder: one per patient, or the folder of a single patient."""
    root = root.resolve()
    entries = (_folder_entry(item, root) for item in walk(root))
    # Slices that lie directly in the folder are those of a patient with its name.
    return sort_entries(entries, patient_at_top=root.name)


@dataclass(frozen=True)
class WalkedPath:
    """A path below a folder. status: of what it leads to; None: a link to nothing."""

    path: Path
    status: os.stat_result | None

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, or a link to one."""
        return self.status is not None and stat.S_ISREG(self.status.st_mode)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, or a link to one."""
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)


def walk(root: Path) -> Iterator[WalkedPath]:
    """Yield everything below a folder, links included, in order of name.

    Each real folder is read once, however many links lead to it: first the real folders, then
    those outside `root` that links lead to. Not read are links to a folder that holds `root`,
    and folders that cannot be used because of their name or depth.

    Raises:
        GliaflowError: a folder may not be read, or its path is too long.
        FileNotFoundError: a folder was removed meanwhile.
    """
    root = root.resolve()
    read = {_identity(parent.stat()) for parent in root.parents}
    folders, links = [WalkedPath(root, root.stat())], list[tuple[bool, Path, WalkedPath]]()
    while folders or links:
        folder = folders.pop() if folders else heapq.heappop(links)[-1]
        assert folder.status is not None
        if _identity(folder.status) in read:
            continue
        read.add(_identity(folder.status))
        if folder.path != root:
            yield folder
        inner = []
        for item, is_link in _entries(folder.path):
            if not (item.is_folder and _can_be_used(item.path, root)):
                yield item
            elif is_link:
                # Of two links to a patient, the one with the name of the folder counts.
                is_renamed = item.path.name != item.path.resolve().name
                heapq.heappush(links, (is_renamed, item.path, item))
            else:
                inner.append(item)
        folders += reversed(inner)


def _can_be_used(folder: Path, root: Path) -> bool:
    depth = len(folder.parts) - len(root.parts)
    return depth < MAX_DEPTH and not scans.name_fault(folder.name)


def _entries(folder: Path) -> list[tuple[WalkedPath, bool]]:
    """Return what lies directly in a folder, by name, and whether it is a symbolic link."""
    with access_errors(folder), os.scandir(folder) as listed:
        entries = sorted(listed, key=lambda entry: entry.name)
    walked = []
    for entry in entries:
        path, is_link = folder / entry.name, entry.is_symlink()
        with access_errors(path if is_link else folder):
            status = _status(entry)
        if status is not None or is_link:  # else it was removed meanwhile
            walked.append((WalkedPath(path, status), is_link))
    return walked


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return the status of what an entry leads to; None: nothing, or a link to itself."""
    try:
        return entry.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _folder_entry(item: WalkedPath, root: Path) -> SourceEntry:
    inside = PurePosixPath(*item.path.relative_to(root).parts)
    if item.is_folder:
        return SourceEntry(inside, "folder")
    if item.status is None or not item.is_file:
        return SourceEntry(inside, "other")
    return SourceEntry(
        inside,
        "file",
        where=str(item.path),
        size=item.status.st_size,
        fingerprint=partial(_sha256, item.path),
        read=partial(_read, item.path),
    )


def _read(path: Path) -> bytes:
    with access_errors(path):
        return regular_files.read(path)


def _sha256(path: Path) -> str:
    with access_errors(path):
        return regular_files.sha256(path)
