"""Files and folders that only their owner may read."""

import os
from pathlib import Path

FOLDER_MODE, FILE_MODE, UMASK = 0o700, 0o600, 0o077


def make_private_folder(path: Path) -> None:
    """Create a folder that only its owner may enter; tighten one that exists."""
    path.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    path.chmod(FOLDER_MODE)


def write_private(path: Path, text: str) -> None:
    """Write a file with mode 600; it is never readable by others, not even for a moment."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def touch_private(path: Path) -> None:
    """Create an empty file with mode 600 unless the file exists."""
    if not path.exists():
        write_private(path, "")
