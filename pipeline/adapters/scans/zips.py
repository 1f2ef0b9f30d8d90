"""List a zip of scans; its entries are unpacked one by one, in memory."""

import lzma
import stat
import struct
import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.adapters.scans.limits import Limits
from pipeline.adapters.scans.listing import Listing, SourceEntry, sort_entries
from pipeline.adapters.scans.paths import check_stays_inside
from pipeline.errors import GliaflowError

UNPACKING_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, RuntimeError,
    ValueError,
)  # fmt: skip


def open_zip(path: Path, source: str) -> zipfile.ZipFile:
    """Open a zip for reading.

    Raises:
        GliaflowError: it is no zip, or broken.
    """
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


def list_zip(archive: zipfile.ZipFile, path: Path, limits: Limits) -> Listing:
    """List the scans of an open zip.

    Raises:
        GliaflowError: an entry would be written outside the target, or all of them together
            expand to more than allowed.
    """
    listed = archive.infolist()
    for entry in listed:
        check_stays_inside(_path_inside(entry), f"{path}: the entry {entry.filename!r}")
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
    if entry.filename.endswith("/"):
        return "folder"
    file_type = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the system has no types
    return "file" if file_type in (0, stat.S_IFREG) else "other"


def _path_inside(entry: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(entry.filename.replace("\\", "/"))


def _unzip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    try:
        return archive.read(entry)
    except UNPACKING_ERRORS as error:
        raise GliaflowError(
            f"{path}: the entry {entry.filename} cannot be unpacked ({error}); download the zip "
            "again"
        ) from error
