"""Places where batches of scans are dropped: a local folder, or a bucket."""

from pathlib import Path, PurePosixPath
from typing import Protocol

from pipeline.adapters.scans import folders
from pipeline.adapters.storage import s3
from pipeline.domain.arrival import ListedFile
from pipeline.errors import GliaflowError


class Place(Protocol):
    """Where batches are dropped."""

    def listings(self) -> dict[str, list[ListedFile]]:
        """List the files of every batch, by name of the batch.

        Raises:
            GliaflowError: the place cannot be read.
        """

    def source(self, batch: str) -> str:
        """Return the source of a batch, as `sources.copy_source` takes it."""


class Folder:
    """A local folder with `<batch>/<patient>/*.tif`; hidden folders are no batches."""

    def __init__(self, root: Path):
        self._root = root

    def listings(self) -> dict[str, list[ListedFile]]:
        try:
            batches = [
                path
                for path in sorted(self._root.iterdir())
                if path.is_dir() and not path.name.startswith(".")
            ]
        except FileNotFoundError as error:
            raise GliaflowError(
                f"the inbox {self._root} is not there; create the folder, or set watch.source in "
                "params.yaml"
            ) from error
        except OSError as error:
            raise GliaflowError(
                f"the inbox {self._root} cannot be read ({error.strerror}); expected a readable "
                "folder: create it, or set watch.source in params.yaml"
            ) from error
        listings = {_storable(folder.name): _list_batch(folder) for folder in batches}
        return {batch: listing for batch, listing in listings.items() if listing is not None}

    def source(self, batch: str) -> str:
        return str(self._root / batch)


def _list_batch(folder: Path) -> list[ListedFile] | None:
    """List the files of a batch; None if a folder in it was moved meanwhile.

    A batch that cannot be listed must not keep the others waiting. It has a single entry, the
    reason; it settles as others do, and is then refused when it is copied.
    """
    root = folder.resolve()
    try:
        return [
            ListedFile(
                str(item.path.relative_to(root)), item.status.st_size, str(item.status.st_mtime_ns)
            )
            for item in folders.walk(root)
            if item.is_file and item.status is not None
        ]
    except FileNotFoundError:
        return None
    except (GliaflowError, OSError) as error:
        return [ListedFile("", 0, str(error))]


def _storable(name: str) -> str:
    """Return the name of a batch, with escapes for bytes that are not UTF-8: it is refused."""
    return name.encode(errors="backslashreplace").decode()


class Bucket:
    """A bucket or a prefix, `s3://bucket/prefix`, with `<batch>/<patient>/*.tif`."""

    def __init__(self, url: str, endpoint_url: str | None):
        self._url = f"s3://{url.removeprefix('s3://').rstrip('/')}"
        self._endpoint_url = endpoint_url

    def listings(self) -> dict[str, list[ListedFile]]:
        listings: dict[str, list[ListedFile]] = {}
        for key, size, etag in s3.list_contents(self._url, self._endpoint_url):
            batch, *inside = PurePosixPath(key).parts or ("",)
            if inside and not key.endswith("/"):
                file = ListedFile(str(PurePosixPath(*inside)), size, etag)
                listings.setdefault(batch, []).append(file)
        return listings

    def source(self, batch: str) -> str:
        return f"{self._url}/{batch}"


def open_place(source: str, endpoint_url: str | None, root: Path) -> Place:
    """Open the place that `watch.source` names; a relative folder is relative to `root`."""
    if source.startswith("s3://"):
        return Bucket(source, endpoint_url)
    return Folder(root / Path(source).expanduser())
