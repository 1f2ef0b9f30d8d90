"""Small disks, and programs that fill them."""

import errno
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILLER = "filler"
BLOCKS = (2**20, 2**12)  # bytes, whole pages; the larger first


class NotAllowedError(Exception):
    """This account may not do what a fault needs: the fault is skipped."""


@contextmanager
def small_disk(mib: int) -> Iterator[Path]:
    """Mount a tmpfs of this size in a new folder.

    Raises:
        NotAllowedError: this account may not mount.
    """
    folder = Path(tempfile.mkdtemp(prefix="gliaflow-disk-"))
    try:
        with mounted(folder, mib):
            yield folder
    finally:
        folder.rmdir()


@contextmanager
def mounted(folder: Path, mib: int) -> Iterator[None]:
    """Mount a tmpfs of this size over a folder, whose content is hidden until the block ends.

    Raises:
        NotAllowedError: this account may not mount.
    """
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        raise NotAllowedError("this account may not mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, *, leave: int = 0) -> Path:
    """Fill the disk of a folder; return the file that does so."""
    filler = folder / FILLER
    with filler.open("wb", buffering=0) as stream:
        try:
            while shutil.disk_usage(folder).free > leave:
                stream.write(b"\0" * min(2**16, shutil.disk_usage(folder).free - leave))
        except OSError as error:  # somebody else wrote meanwhile
            if error.errno != errno.ENOSPC:
                raise
    return filler


@contextmanager
def kept_full(disk: Path) -> Iterator[None]:
    """Take every byte of a disk that becomes free, until the block ends."""
    stop = threading.Event()
    filler = disk / FILLER
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def take() -> None:
        while not stop.is_set():
            for size in BLOCKS:
                _append(descriptor, size)
            stop.wait(0.002)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        os.close(descriptor)
        filler.unlink()


def _append(descriptor: int, size: int) -> None:
    """Append blocks until there is no room for one more."""
    block = b"\0" * size
    try:
        while os.write(descriptor, block) == size:
            pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
