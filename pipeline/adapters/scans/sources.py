"""Copy scans from where they come from: a folder, Kaggle's zip, an S3 bucket, Kaggle itself.

A source is listed first: what is a scan, what is skipped, and whether it keeps the limits. Then
each file of a patient is copied once, as bytes. It is not decoded: a broken scan is copied
unchanged, and the stage `validate` reports it.
"""

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.adapters.scans import buckets, folders, kaggle, zips
from pipeline.adapters.scans.duplicates import deduplicate
from pipeline.adapters.scans.limits import Limits, check_limits
from pipeline.adapters.scans.listing import Listing, Skipped, SourceFile, describe_skipped
from pipeline.adapters.scans.paths import access_errors, kind_of, printable
from pipeline.adapters.storage import files
from pipeline.errors import GliaflowError


@dataclass(frozen=True)
class Copied:
    """What `copy_source` did. files: how many there are now."""

    files: int
    skipped: tuple[Skipped, ...]


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
        source = str(kaggle.download())
    if source.startswith("s3://"):
        return write(buckets.list_bucket(source, endpoint_url), source=source, threads=16)
    path = _local_path(source)
    if path.is_dir():
        return write(folders.list_folder(path), source=source)
    with zips.open_zip(path, source) as archive:
        return write(zips.list_zip(archive, path, limits), source=source)


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


def _local_path(source: str) -> Path:
    """Return the path of a folder or regular file that exists and may be read.

    Raises:
        GliaflowError: it does not, or is something else, such as a pipe.
    """
    try:
        path = Path(source).expanduser()
        with access_errors(path):
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
