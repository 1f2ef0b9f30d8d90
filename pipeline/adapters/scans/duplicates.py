"""Copies of a file within a source: the same patient and name in several folders."""

from collections.abc import Iterable

from pipeline.adapters.scans.listing import SourceFile
from pipeline.errors import GliaflowError


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
