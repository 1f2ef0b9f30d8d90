"""Write files atomically and hash them."""

import hashlib
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import GliaflowError


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file that a stage wrote, as hex.

    Raises:
        GliaflowError: the file does not exist.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise GliaflowError(f"{path} does not exist; run `dvc repro` to build it") from None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` if the block succeeds.

    The block may write a file or a folder there. If it raises, `path` stays as it was and
    nothing else is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    replaced = temporary.with_name(f"{temporary.name}.old")
    try:
        yield temporary
        if path.is_dir():
            path.rename(replaced)
        temporary.replace(path)
    finally:
        shutil.rmtree(replaced, ignore_errors=True)
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text atomically, in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
