"""Small sources of scans, as a folder or a zip, and what copying them gives."""

import zipfile
from pathlib import Path

import pytest
from making import content

from pipeline.adapters.scans import sources
from pipeline.adapters.scans.limits import Limits
from pipeline.errors import GliaflowError

CS, DU = "TCGA_CS_4941_19960909", "TCGA_DU_5849_19950405"
SLICES = {
    f"{CS}/{CS}_1.tif": b"first slice",
    f"{CS}/{CS}_1_mask.tif": b"its mask",
    f"{DU}/{DU}_1.tif": b"another patient's slice",
    f"{DU}/{DU}_1_mask.tif": b"another mask",
}
CLINICAL = b"Patient,RNASeqCluster\nTCGA_CS_4941,2\n"
KAGGLE = {f"kaggle_3m/{name}": body for name, body in (SLICES | {"data.csv": CLINICAL}).items()}
KAGGLE |= {"kaggle_3m/README.md": b"about the data"}
SECOND = {f"lgg-mri-segmentation/{name}": body for name, body in KAGGLE.items()}
SECOND["lgg-mri-segmentation/kaggle_3m/data.csv"] = b"Patient;RNASeqCluster\r\nTCGA_CS_4941;2\r\n"
KAGGLE_TWICE = KAGGLE | SECOND  # as in Kaggle's zip: all of it a second time, in a folder


def copy(
    source: object, into: Path, *, endpoint_url: str | None = None, **limits: float
) -> sources.Copied:
    return sources.copy_source(
        str(source), into, endpoint_url=endpoint_url, limits=Limits(**{"max_gib": 1} | limits)
    )


def error_of(source: object, into: Path, **options: object) -> str:
    """Return the error's message, which is one line; nothing may have been written."""
    with pytest.raises(GliaflowError) as raised:
        copy(source, into, **options)
    assert "\n" not in str(raised.value)
    assert not into.exists() or not content(into)
    return str(raised.value)


def make_folder(root: Path, entries: dict[str, bytes]) -> Path:
    for name, body in entries.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    return root


def make_zip(
    path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return path


def skipped(copied: sources.Copied) -> dict[str, str]:
    """Return what was skipped: path to reason."""
    return {item.path: item.reason for item in copied.skipped}
