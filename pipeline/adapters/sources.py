"""Where scans come from: a folder, Kaggle's zip, an S3 bucket, Kaggle itself.

Finds the files of patients, each once, and hands them on as bytes. Does not decode them:
a broken scan is copied as it is, and validation says so later.
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
from pathlib import Path, PurePosixPath

from pipeline.adapters import buckets, files
from pipeline.errors import GliaflowError

KAGGLE_SET = "mateuszbuda/lgg-mri-segmentation"
TERMS = (
    f"The scans of {KAGGLE_SET} come from The Cancer Imaging Archive (TCGA-LGG); treat them as "
    "CC BY-NC-SA 4.0: non-commercial use, with attribution, and no attempt to identify patients."
)
CLINICAL = "data.csv"
TIF = {".tif", ".tiff"}


@dataclass(frozen=True)
class Found:
    """A file of a source: `patient/name`, or the clinical table where patient is empty.

    where: for messages. fingerprint: equal for equal content, within one source.
    """

    patient: str
    name: str
    where: str
    depth: int
    size: int
    fingerprint: Callable[[], str]
    read: Callable[[], bytes]


def copy(
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
        endpoint_url: of an S3 server that is not Amazon's.
        max_gib: what a zip may expand to.
        resume: files that are there already, of the size expected, are left: an earlier copy
            of the very same listing was cut off.
        link: hard links instead of copies, where source and target allow them. The files
            must then never be changed in place.

    Returns:
        How many files were copied.

    Raises:
        GliaflowError: the source is not there, refuses, holds no scans, holds a patient
            twice with different content, or is a zip that is broken, climbs out or is too large.
    """
    if source == "kaggle":
        source = str(_kaggle_folder())
    if source.startswith("s3://"):
        found = _in_bucket(source, endpoint_url)
        return _write(found, into, source, threads=16, resume=resume)
    path = Path(source).expanduser()
    with _permitted(path):
        is_folder = path.is_dir()
        if path.is_file():
            path.open("rb").close()
    if is_folder:
        return _write(_in_folder(path), into, source, resume=resume, link=link)
    if not path.exists():
        raise GliaflowError(
            f"the source {source} is not there; expected a folder, a zip, s3://bucket/prefix or "
            "kaggle: set it with `gliaflow use lgg --source PATH`"
        )
    if not zipfile.is_zipfile(path):
        raise GliaflowError(
            f"the source {source} is neither a folder nor a zip; if it is meant to be one, its "
            "download was cut off: get it again"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return _write(_in_zip(archive, path, max_gib), into, source)
    except zipfile.BadZipFile as error:
        raise GliaflowError(f"{path} is a broken zip ({error}); get it again") from error


def once(files: Iterable[Found]) -> list[Found]:
    """Keep each patient's files once, where a source holds copies of them (as Kaggle's zip does).

    The copy nearest to the top stays.

    Raises:
        GliaflowError: two files of one patient and name differ.
    """
    kept: dict[tuple[str, str], Found] = {}
    for file in sorted(files, key=lambda file: (file.depth, file.where)):
        first = kept.setdefault((file.patient, file.name), file)
        if file is first or not file.patient:
            continue
        if first.fingerprint() != file.fingerprint():
            raise GliaflowError(
                f"{first.where} and {file.where} are one slice of one patient with different "
                "content; expected copies to be equal: take one of them out of the source"
            )
    return [kept[key] for key in sorted(kept)]


def _write(
    found: Iterable[Found],
    into: Path,
    source: str,
    *,
    threads: int = 1,
    resume: bool = False,
    link: bool = False,
) -> int:
    chosen = once(found)
    if not any(file.patient for file in chosen):
        raise GliaflowError(
            f"{source} holds no scans; expected <patient>/<patient>_<number>.tif, and "
            "<patient>_<number>_mask.tif beside it"
        )
    for folder in {file.patient for file in chosen}:
        (into / folder).mkdir(parents=True, exist_ok=True)

    def save(file: Found) -> None:
        target = into / file.patient / file.name
        if resume and target.exists() and target.stat().st_size == file.size:
            return
        if link and _linked(Path(file.where), target):
            return
        with files.replacing(target) as beside:
            beside.write_bytes(file.read())

    if threads == 1:
        for file in chosen:
            save(file)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(save, chosen))
    return len(chosen)


def _linked(source: Path, target: Path) -> bool:
    if not os.access(source, os.R_OK):
        return False
    try:
        target.hardlink_to(source)
    except OSError:
        return False
    return True


def below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Every file below a folder, in order of name; into folders that are links as well.

    Args:
        above: real folders that we came through; a link back to one of them is left out.

    Raises:
        GliaflowError: a folder may not be read.
        FileNotFoundError: a folder went away meanwhile.
    """
    inside = (*above, folder.resolve())
    with _permitted(folder):
        entries = [(path, path.is_file(), path.is_dir()) for path in sorted(folder.iterdir())]
    for path, is_file, is_folder in entries:
        if is_file:
            yield path
        elif is_folder and path.resolve() not in inside:
            yield from below(path, inside)


@contextmanager
def _permitted(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise GliaflowError(
            f"{path} may not be read; give yourself the right to, or take it out"
        ) from error


def _read(path: Path) -> bytes:
    with _permitted(path):
        return path.read_bytes()


def _place(path: PurePosixPath) -> tuple[str, str] | None:
    """(patient, name) of a path inside a source, None for what is no scan."""
    if path.name.startswith("._") or "__MACOSX" in path.parts:
        return None  # what macOS adds to zips
    if path.suffix.lower() in TIF and len(path.parts) > 1:
        return path.parent.name, path.name
    return ("", CLINICAL) if path.name == CLINICAL else None


def _in_folder(root: Path) -> Iterator[Found]:
    root = root.resolve()
    paths = list(below(root))
    # A folder that holds the slices of one patient directly is taken as that patient.
    one = any(path.parent == root and path.suffix.lower() in TIF for path in paths)
    base = root.parent if one else root
    for path in paths:
        inside = path.relative_to(base)
        place = _place(PurePosixPath(*inside.parts))
        if place is None:
            continue
        yield Found(
            *place,
            where=str(path),
            depth=len(inside.parts),
            size=path.stat().st_size,
            fingerprint=lambda path=path: hashlib.sha256(_read(path)).hexdigest(),
            read=partial(_read, path),
        )


def _in_zip(archive: zipfile.ZipFile, path: Path, max_gib: float) -> Iterator[Found]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    for entry in entries:
        _stays_inside(_inside(entry), f"{path}: the entry {entry.filename!r}")
    total_gib = sum(entry.file_size for entry in entries) / 2**30
    if total_gib > max_gib:
        raise GliaflowError(
            f"{path} expands to {total_gib:.1f} GiB; allowed: {max_gib:g} (fetch.max_gib in "
            "params.yaml); nothing was unpacked"
        )
    for entry in entries:
        inside = _inside(entry)
        place = _place(inside)
        if place is not None:
            yield Found(
                *place,
                where=f"{path}:{entry.filename}",
                depth=len(inside.parts),
                size=entry.file_size,
                fingerprint=lambda entry=entry: f"{entry.CRC:08x} {entry.file_size}",
                read=lambda entry=entry: _unzip(archive, entry, path),
            )


def _inside(entry: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(entry.filename.replace("\\", "/"))


def _stays_inside(path: PurePosixPath, what: str) -> None:
    if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
        raise GliaflowError(
            f"{what} climbs out of the folder it would be copied to; nothing was copied: look at "
            "where these scans come from"
        )


def _unzip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise GliaflowError(
            f"{path}: the entry {entry.filename} cannot be unpacked ({error}); get the zip again"
        ) from error


def _in_bucket(source: str, endpoint_url: str | None) -> Iterator[Found]:
    bucket, prefix = buckets.named(source)
    client, listed = buckets.listed(source, endpoint_url)
    for item in listed:
        inside = PurePosixPath(item["Key"].removeprefix(prefix))
        _stays_inside(inside, f"s3://{bucket}/{item['Key']}")
        place = _place(inside)
        if place is not None:
            yield Found(
                *place,
                where=f"s3://{bucket}/{item['Key']}",
                depth=len(inside.parts),
                size=item["Size"],
                fingerprint=lambda item=item: f"{item['ETag']} {item['Size']}",
                read=lambda item=item: buckets.read(client, item, source, endpoint_url),
            )


def _kaggle_folder() -> Path:
    print(TERMS, flush=True)
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(KAGGLE_SET))
    except Exception as error:  # kagglehub raises what its HTTP client raises
        raise GliaflowError(
            f"{KAGGLE_SET} did not come from Kaggle ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); log in (KAGGLE_USERNAME and KAGGLE_KEY, or "
            "~/.kaggle/kaggle.json), or download the zip by hand and give its path with --source"
        ) from error
