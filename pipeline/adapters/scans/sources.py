"""Copy scans from where they come from: a folder, Kaggle's zip, an S3 bucket, Kaggle itself.

A source is listed first: what is a scan, what is skipped, and whether it keeps the limits. Then
each file of a patient is copied once, as bytes. It is not decoded: a broken scan is copied
unchanged, and the stage `validate` reports it.
"""

import errno
import hashlib
import heapq
import math
import os
import stat
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.adapters.scans import batches
from pipeline.adapters.storage import files, s3
from pipeline.domain import arrival, scans
from pipeline.errors import GliaflowError
from pipeline.params import Fetch

KAGGLE_SET = "mateuszbuda/lgg-mri-segmentation"
TERMS = (
    f"The scans of {KAGGLE_SET} come from The Cancer Imaging Archive (TCGA-LGG); treat them as "
    "CC BY-NC-SA 4.0: non-commercial use, with attribution, and no attempt to identify patients."
)
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
SHOWN_CHARACTERS = 500  # of a path
KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


@dataclass(frozen=True)
class Limits:
    """What a source or a batch may hold at most: keys of the section `fetch` of params.yaml.

    max_gib: what a zip expands to. max_file_mib: size of a file. max_patient_files: files of a
    patient, masks included. max_batch_patients: patients.
    """

    max_gib: float
    max_file_mib: float = math.inf
    max_patient_files: float = math.inf
    max_batch_patients: float = math.inf

    @classmethod
    def from_params(cls, section: Fetch) -> "Limits":
        """Return the limits that params.yaml sets."""
        return cls(
            max_gib=section.max_gib,
            max_file_mib=section.max_file_mib,
            max_patient_files=section.max_patient_files,
            max_batch_patients=section.max_batch_patients,
        )


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


@dataclass(frozen=True)
class Copied:
    """What `copy_source` did. files: how many there are now."""

    files: int
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Excess:
    """A file or a patient over a limit. file: empty if it is the patient."""

    patient: str
    file: str
    where: str
    found: str
    allowed: str


def copy_source(
    source: str,
    into: Path,
    *,
    endpoint_url: str | None,
    limits: Limits,
    resume: bool = False,
    link: bool = False,
    check_space: Callable[[int], None] | None = None,
) -> Copied:
    """Copy the scans of a source to `into/<patient>/<file>`, bytes unchanged.

    Args:
        source: a folder, a zip, `s3://bucket/prefix`, or `kaggle`.
        endpoint_url: of an S3 server other than Amazon's.
        resume: skip files that exist with the expected size. Only for completing an
            interrupted copy of the very same listing.
        link: make hard links instead of copies where both file systems allow it. The files
            must then never be changed in place.
        check_space: called with the bytes of all files before any is copied; raises if they
            do not fit.

    Raises:
        GliaflowError: the source does not exist, refuses access, is neither a folder nor a
            regular file, breaks a limit or holds no scans; a slice occurs twice with different
            content; or a zip is broken or would write outside its folder.
    """
    write = partial(
        _write, into=into, limits=limits, resume=resume, link=link, check_space=check_space
    )
    if source == "kaggle":
        source = str(_kaggle_folder())
    if source.startswith("s3://"):
        return write(_list_bucket(source, endpoint_url), source=source, threads=16)
    path = _local_path(source)
    if path.is_dir():
        return write(list_folder(path), source=source)
    with _open_zip(path, source) as archive:
        return write(_list_zip(archive, path, limits), source=source)


def list_folder(root: Path) -> Listing:
    """List the scans of a folder: one per patient, or the folder of a single patient."""
    root = root.resolve()
    entries = (_folder_entry(item, root) for item in walk(root))
    # Slices that lie directly in the folder are those of a patient with its name.
    return sort_entries(entries, patient_at_top=root.name)


def describe_skipped(skipped: Iterable[Skipped]) -> str:
    """Name what is skipped, at most ten of it; empty if nothing is."""
    names = [f"{item.path} ({item.reason})" for item in skipped]
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    what = "folder or file" if len(names) == 1 else "folders or files"
    return f"{len(names)} {what} skipped: {', '.join(names[:SHOWN])}{more}"


def deduplicate(files: Iterable[SourceFile]) -> list[SourceFile]:
    """Keep one of several equal copies of a file, as Kaggle's zip has them.

    Returns:
        The files that are kept, sorted by patient and name.

    Raises:
        GliaflowError: two copies of a slice differ.
    """
    kept, differing = unique_copies(files)
    if differing:
        first, other = differing[0]
        raise GliaflowError(
            f"{first.where} and {other.where} are the same slice of a patient with different "
            "content; expected equal copies: remove one of them from the source"
        )
    return kept


def unique_copies(
    files: Iterable[SourceFile],
) -> tuple[list[SourceFile], list[tuple[SourceFile, SourceFile]]]:
    """Keep one of several copies of a file: those with the same patient and name.

    The one nearest to the top of the source is kept; of clinical tables too, whatever their
    content.

    Returns:
        The files that are kept, sorted by patient and name; and the pairs of a file that is
        kept and a copy with other content.
    """
    unique: dict[tuple[str, str], SourceFile] = {}
    differing = []
    for file in sorted(files, key=lambda file: (file.depth, file.where)):
        first = unique.setdefault((file.patient, file.name), file)
        if file is first or not file.patient:
            continue
        if first.fingerprint() != file.fingerprint():
            differing.append((first, file))
    return [unique[key] for key in sorted(unique)], differing


def check_limits(listed: list[SourceFile], limits: Limits, source: str) -> None:
    """Make sure that a source keeps the limits; copies of a file count once.

    Raises:
        GliaflowError: it does not; names the file or patient, the number and the limit.
    """
    check_patients(listed, limits, source)
    for excess in find_excesses(listed, limits):
        raise GliaflowError(
            f"{excess.where} {excess.found}; allowed: {excess.allowed}; nothing was copied: "
            "remove it from the source, or raise the limit"
        )


def check_patients(listed: Iterable[SourceFile], limits: Limits, source: str) -> None:
    """Make sure that a source has no more patients than allowed.

    Raises:
        GliaflowError: it has.
    """
    count = len({file.patient for file in listed if file.patient})
    if count > limits.max_batch_patients:
        raise GliaflowError(
            f"{source} holds {count} patients; allowed: {limits.max_batch_patients} "
            "(fetch.max_batch_patients in params.yaml); nothing was copied: split it, or raise "
            "the limit"
        )


def find_excesses(listed: Iterable[SourceFile], limits: Limits) -> list[Excess]:
    """Return the files that are too large, then the patients with too many files."""
    names: dict[str, set[str]] = defaultdict(set)
    excesses = []
    for file in listed:
        names[file.patient].add(file.name)
        if file.size > limits.max_file_mib * 2**20:
            found = f"has {file.size / 2**20:.1f} MiB"
            allowed = f"{limits.max_file_mib} (fetch.max_file_mib in params.yaml)"
            excesses.append(Excess(file.patient, file.inside, file.where, found, allowed))
    allowed = f"{limits.max_patient_files} (fetch.max_patient_files in params.yaml)"
    return excesses + [
        Excess(patient, "", f"the patient {patient}", f"has {len(of_patient)} files", allowed)
        for patient, of_patient in sorted(names.items())
        if len(of_patient) > limits.max_patient_files
    ]


def _write(
    listing: Listing,
    *,
    into: Path,
    source: str,
    limits: Limits,
    threads: int = 1,
    resume: bool = False,
    link: bool = False,
    check_space: Callable[[int], None] | None = None,
) -> Copied:
    """Write every file once. See `copy_source`."""
    check_limits(listing.files, limits, source)
    if not any(file.patient for file in listing.files):
        skipped = describe_skipped(listing.skipped)
        raise GliaflowError(
            f"{source} holds no scans; expected <patient>/<patient>_<number>.tif, and "
            f"<patient>_<number>_mask.tif beside it{skipped and f'; {skipped}'}"
        )
    chosen = deduplicate(listing.files)
    if check_space is not None:
        check_space(sum(file.size for file in chosen))
    for patient in {file.patient for file in chosen}:
        (into / patient).mkdir(parents=True, exist_ok=True)
    write = partial(_write_file, into=into, resume=resume, link=link)
    if threads == 1:
        for file in chosen:
            write(file)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write, chosen))
    return Copied(len(chosen), listing.skipped)


def _write_file(file: SourceFile, *, into: Path, resume: bool, link: bool) -> None:
    target = into / file.patient / file.name
    if resume and target.exists() and target.stat().st_size == file.size:
        return
    if link and _make_link(Path(file.where), target):
        return
    with files.atomic_write(target) as temporary:
        temporary.write_bytes(file.read())


def _make_link(source: Path, target: Path) -> bool:
    """Make a hard link; return False if it is not possible or the source may not be read."""
    if not os.access(source, os.R_OK):
        return False
    try:
        # Of a symbolic link, Linux would link the link itself, which leads nowhere from there.
        target.hardlink_to(source.resolve())
    except OSError:
        return False
    return True


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
    with _access_errors(folder), os.scandir(folder) as listed:
        entries = sorted(listed, key=lambda entry: entry.name)
    walked = []
    for entry in entries:
        path, is_link = folder / entry.name, entry.is_symlink()
        with _access_errors(path if is_link else folder):
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


@contextmanager
def _access_errors(path: Path) -> Iterator[None]:
    """Turn a refused access to `path`, or a path that is too long, into an error for users."""
    try:
        yield
    except PermissionError as error:
        raise GliaflowError(
            f"{printable(path)} may not be read; change its permissions, or remove it"
        ) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise GliaflowError(
            f"{printable(path)} is too long a path to be read; move its content further up"
        ) from error


def printable(path: object) -> str:
    """Return a path as it can be printed: on one line, in valid UTF-8, not too long."""
    text = str(path)
    shown = ascii(text) if scans.print_fault(text) else text
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."


def kind_of(status: os.stat_result) -> str:
    """Name what a path leads to: `a pipe`, `a socket`, `a device`, `a folder` or `a file`."""
    return next((name for test, name in KINDS if test(status.st_mode)), "a file")


def _read(path: Path) -> bytes:
    with _access_errors(path):
        return path.read_bytes()


def _sha256(path: Path) -> str:
    return hashlib.sha256(_read(path)).hexdigest()


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


def _local_path(source: str) -> Path:
    """Return the path of a folder or regular file that exists and may be read.

    Raises:
        GliaflowError: it does not, or is something else, such as a pipe.
    """
    try:
        path = Path(source).expanduser()
        with _access_errors(path):
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError, RuntimeError, ValueError) as error:
        raise GliaflowError(
            f"the source {printable(source)} does not exist; expected a folder, a zip, "
            "s3://bucket/prefix or kaggle: set it with `gliaflow use lgg --source PATH`"
        ) from error
    except OSError as error:
        raise GliaflowError(
            f"the source {printable(source)} cannot be read ({error.strerror}); expected a folder "
            "or a zip: set it with `gliaflow use lgg --source PATH`"
        ) from error
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        raise GliaflowError(
            f"the source {source} is {kind_of(status)}; expected a folder, a zip, "
            "s3://bucket/prefix or kaggle: set it with `gliaflow use lgg --source PATH`"
        )
    return path


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


def _open_zip(path: Path, source: str) -> zipfile.ZipFile:
    if not zipfile.is_zipfile(path):
        raise GliaflowError(
            f"the source {source} is neither a folder nor a zip; if it should be a zip, its "
            "download was interrupted: download it again"
        )
    try:
        return zipfile.ZipFile(path)
    except UnicodeDecodeError as error:
        raise GliaflowError(
            f"{path} holds a file whose name is not valid UTF-8; unpack it, rename the file and "
            "use the folder"
        ) from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise GliaflowError(f"{path} is a broken zip ({error}); download it again") from error


def _list_zip(archive: zipfile.ZipFile, path: Path, limits: Limits) -> Listing:
    listed = archive.infolist()
    for entry in listed:
        _check_stays_inside(_path_inside(entry), f"{path}: the entry {entry.filename!r}")
    total_gib = sum(entry.file_size for entry in listed) / 2**30
    if total_gib > limits.max_gib:
        raise GliaflowError(
            f"{path} expands to {total_gib:.1f} GiB; allowed: {limits.max_gib:g} (fetch.max_gib in "
            "params.yaml); nothing was unpacked"
        )
    return sort_entries(
        SourceEntry(
            _path_inside(entry),
            _kind_in_zip(entry),
            where=f"{path}:{entry.filename}",
            size=entry.file_size,
            fingerprint=partial(str, f"{entry.CRC:08x} {entry.file_size}"),
            read=partial(_unzip, archive, entry, path),
        )
        for entry in listed
    )


def _kind_in_zip(entry: zipfile.ZipInfo) -> Literal["file", "folder", "other"]:
    if entry.is_dir():
        return "folder"
    file_type = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the system has no types
    return "file" if file_type in (0, stat.S_IFREG) else "other"


def _path_inside(entry: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(entry.filename.replace("\\", "/"))


def _check_stays_inside(path: PurePosixPath, what: str) -> None:
    if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
        raise GliaflowError(
            f"{what} climbs out of the folder that it would be copied to; nothing was copied: "
            "check where these scans come from"
        )


def _unzip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise GliaflowError(
            f"{path}: the entry {entry.filename} cannot be unpacked ({error}); download the zip "
            "again"
        ) from error


def _list_bucket(source: str, endpoint_url: str | None) -> Listing:
    bucket, prefix = s3.parse_url(source)
    client, objects = s3.list_objects(source, endpoint_url)
    entries = []
    for item in objects:
        inside = PurePosixPath(item["Key"].removeprefix(prefix))
        where = f"s3://{bucket}/{item['Key']}"
        _check_stays_inside(inside, printable(where))
        entries.append(
            SourceEntry(
                inside,
                "folder" if item["Key"].endswith("/") else "file",
                where=where,
                size=item["Size"],
                fingerprint=partial(str, f"{item['ETag']} {item['Size']}"),
                read=partial(s3.read_object, client, item, source, endpoint_url),
            )
        )
    return sort_entries(entries)


def _kaggle_folder() -> Path:
    """Print the terms of use, then download the data set; return its folder."""
    print(TERMS, flush=True)
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(KAGGLE_SET))
    except Exception as error:  # kagglehub raises what its HTTP client raises
        raise GliaflowError(
            f"{KAGGLE_SET} could not be downloaded from Kaggle ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); log in (KAGGLE_USERNAME and KAGGLE_KEY, or "
            "~/.kaggle/kaggle.json), or download the zip by hand and give its path with --source"
        ) from error
