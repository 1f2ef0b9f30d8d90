"""Copy scans from where they come from: a folder, Kaggle's zip, an S3 bucket, Kaggle itself.

Each file of a patient is copied once, as bytes. It is not decoded: a broken scan is copied
unchanged, and the stage `validate` reports it.
"""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath, PurePosixPath

from pipeline.adapters.storage import files, s3
from pipeline.errors import GliaflowError

KAGGLE_SET = "mateuszbuda/lgg-mri-segmentation"
TERMS = (
    f"The scans of {KAGGLE_SET} come from The Cancer Imaging Archive (TCGA-LGG); treat them as "
    "CC BY-NC-SA 4.0: non-commercial use, with attribution, and no attempt to identify patients."
)
CLINICAL = "data.csv"
TIF = {".tif", ".tiff"}


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: a patient's tif, or the clinical table, whose patient is empty.

    where: full path, for messages. depth: parts of its path inside the source. size: in bytes.
    fingerprint: equal for equal content, within one source.
    """

    patient: str
    name: str
    where: str
    depth: int
    size: int
    fingerprint: Callable[[], str]
    read: Callable[[], bytes]


def copy_source(
    source: str,
    into: Path,
    *,
    endpoint_url: str | None,
    max_gib: float,
    resume: bool = False,
    link: bool = False,
) -> int:
    """Copy the scans of a source to `into/<patient>/<file>`, bytes unchanged.

    Args:
        source: a folder, a zip, `s3://bucket/prefix`, or `kaggle`.
        endpoint_url: of an S3 server other than Amazon's.
        max_gib: limit on what a zip may expand to.
        resume: skip files that exist with the expected size. Only for completing an
            interrupted copy of the very same listing.
        link: make hard links instead of copies where both file systems allow it. The files
            must then never be changed in place.

    Returns:
        Number of files.

    Raises:
        GliaflowError: the source does not exist, refuses access or holds no scans; a slice
            occurs twice with different content; or a zip is broken, would write outside its
            folder or is too large.
    """
    if source == "kaggle":
        source = str(_kaggle_folder())
    if source.startswith("s3://"):
        files_in_bucket = _in_bucket(source, endpoint_url)
        return _write(files_in_bucket, into, source, threads=16, resume=resume)
    path = Path(source).expanduser()
    with _permission_errors(path):
        is_folder = path.is_dir()
        if path.is_file():
            path.open("rb").close()
    if is_folder:
        return _write(_in_folder(path), into, source, resume=resume, link=link)
    _check_is_zip(path, source)
    try:
        with zipfile.ZipFile(path) as archive:
            return _write(_in_zip(archive, path, max_gib), into, source)
    except zipfile.BadZipFile as error:
        raise GliaflowError(f"{path} is a broken zip ({error}); download it again") from error


def _check_is_zip(path: Path, source: str) -> None:
    if not path.exists():
        raise GliaflowError(
            f"the source {source} does not exist; expected a folder, a zip, s3://bucket/prefix or "
            "kaggle: set it with `gliaflow use lgg --source PATH`"
        )
    if not zipfile.is_zipfile(path):
        raise GliaflowError(
            f"the source {source} is neither a folder nor a zip; if it should be a zip, its "
            "download was interrupted: download it again"
        )


def deduplicate(files: Iterable[SourceFile]) -> list[SourceFile]:
    """Keep one of several equal copies of a file, as Kaggle's zip has them.

    Copies have the same patient and name. The one nearest to the top of the source is kept;
    of clinical tables too, whatever their content.

    Returns:
        The files that are kept, sorted by patient and name.

    Raises:
        GliaflowError: two copies of a slice differ.
    """
    unique: dict[tuple[str, str], SourceFile] = {}
    for file in sorted(files, key=lambda file: (file.depth, file.where)):
        first = unique.setdefault((file.patient, file.name), file)
        if file is first or not file.patient:
            continue
        if first.fingerprint() != file.fingerprint():
            raise GliaflowError(
                f"{first.where} and {file.where} are the same slice of a patient with different "
                "content; expected equal copies: remove one of them from the source"
            )
    return [unique[key] for key in sorted(unique)]


def _write(
    source_files: Iterable[SourceFile],
    into: Path,
    source: str,
    *,
    threads: int = 1,
    resume: bool = False,
    link: bool = False,
) -> int:
    """Write every file once; return how many there are. See `copy_source`."""
    chosen = deduplicate(source_files)
    if not any(file.patient for file in chosen):
        raise GliaflowError(
            f"{source} holds no scans; expected <patient>/<patient>_<number>.tif, and "
            "<patient>_<number>_mask.tif beside it"
        )
    for patient in {file.patient for file in chosen}:
        (into / patient).mkdir(parents=True, exist_ok=True)
    write = partial(_write_file, into=into, resume=resume, link=link)
    if threads == 1:
        for file in chosen:
            write(file)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write, chosen))
    return len(chosen)


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
        target.hardlink_to(source)
    except OSError:
        return False
    return True


def walk_files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield every file below a folder, in order of name; follow links to folders.

    Args:
        above: real paths of the folders that lead here; a link back to one of them is skipped.

    Raises:
        GliaflowError: a folder may not be read.
        FileNotFoundError: a folder was removed meanwhile.
    """
    inside = (*above, folder.resolve())
    with _permission_errors(folder):
        entries = [(path, path.is_file(), path.is_dir()) for path in sorted(folder.iterdir())]
    for path, is_file, is_folder in entries:
        if is_file:
            yield path
        elif is_folder and path.resolve() not in inside:
            yield from walk_files(path, inside)


@contextmanager
def _permission_errors(path: Path) -> Iterator[None]:
    """Turn a refused access to `path` into an error for users."""
    try:
        yield
    except PermissionError as error:
        raise GliaflowError(
            f"{path} may not be read; change its permissions, or remove it"
        ) from error


def _read(path: Path) -> bytes:
    with _permission_errors(path):
        return path.read_bytes()


def _sha256(path: Path) -> str:
    return hashlib.sha256(_read(path)).hexdigest()


def is_slice(path: PurePath) -> bool:
    """Whether a file may be a slice or its mask, by its name: a tif that macOS did not add."""
    is_added = path.name.startswith("._") or "__MACOSX" in path.parts
    return path.suffix.lower() in TIF and not is_added


def _patient_and_name(path: PurePosixPath) -> tuple[str, str] | None:
    """Return patient and name of a file by its path inside a source; None if it is no scan."""
    if is_slice(path) and len(path.parts) > 1:
        return path.parent.name, path.name
    return ("", CLINICAL) if path.name == CLINICAL else None


def _in_folder(root: Path) -> Iterator[SourceFile]:
    root = root.resolve()
    paths = list(walk_files(root))
    # A folder that directly holds slices is the folder of a single patient.
    is_patient = any(path.parent == root and path.suffix.lower() in TIF for path in paths)
    base = root.parent if is_patient else root
    for path in paths:
        inside = PurePosixPath(*path.relative_to(base).parts)
        identity = _patient_and_name(inside)
        if identity is not None:
            yield SourceFile(
                *identity,
                where=str(path),
                depth=len(inside.parts),
                size=path.stat().st_size,
                fingerprint=partial(_sha256, path),
                read=partial(_read, path),
            )


def _in_zip(archive: zipfile.ZipFile, path: Path, max_gib: float) -> Iterator[SourceFile]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    for entry in entries:
        _check_stays_inside(_path_inside(entry), f"{path}: the entry {entry.filename!r}")
    total_gib = sum(entry.file_size for entry in entries) / 2**30
    if total_gib > max_gib:
        raise GliaflowError(
            f"{path} expands to {total_gib:.1f} GiB; allowed: {max_gib:g} (fetch.max_gib in "
            "params.yaml); nothing was unpacked"
        )
    for entry in entries:
        inside = _path_inside(entry)
        identity = _patient_and_name(inside)
        if identity is not None:
            yield SourceFile(
                *identity,
                where=f"{path}:{entry.filename}",
                depth=len(inside.parts),
                size=entry.file_size,
                fingerprint=partial(str, f"{entry.CRC:08x} {entry.file_size}"),
                read=partial(_unzip, archive, entry, path),
            )


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


def _in_bucket(source: str, endpoint_url: str | None) -> Iterator[SourceFile]:
    bucket, prefix = s3.parse_url(source)
    client, objects = s3.list_objects(source, endpoint_url)
    for item in objects:
        inside = PurePosixPath(item["Key"].removeprefix(prefix))
        _check_stays_inside(inside, f"s3://{bucket}/{item['Key']}")
        identity = _patient_and_name(inside)
        if identity is not None:
            yield SourceFile(
                *identity,
                where=f"s3://{bucket}/{item['Key']}",
                depth=len(inside.parts),
                size=item["Size"],
                fingerprint=partial(str, f"{item['ETag']} {item['Size']}"),
                read=partial(s3.read_object, client, item, source, endpoint_url),
            )


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
