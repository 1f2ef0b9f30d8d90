"""Hash everything that a version was made of again, and compare with what was recorded."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml

from pipeline import params
from pipeline.adapters.checkout import commands, provenance
from pipeline.adapters.checkout.project import Project
from pipeline.adapters.storage import files, stage_tables
from pipeline.adapters.tracking.registry import Registry
from pipeline.adapters.tracking.versions import MissingFilesError, Version
from pipeline.errors import GliaflowError

State = Literal["same", "different", "missing"]
COMMIT_TAG = "gliaflow.commit"
DIRTY = "+changes"


@dataclass(frozen=True)
class Part:
    """A part of a version's lineage. detail: what was compared, for people."""

    name: str
    state: State
    detail: str


def verify(checkout: Project, registry: Registry, version: Version) -> list[Part]:
    """Compare every part of a version with what it was registered with; changes nothing."""
    return [
        _model(registry, version),
        _artifact(registry, version, "manifest", "manifest.csv", "data", files.sha256),
        _artifact(registry, version, "split", "splits.csv", "split", files.sha256),
        _artifact(registry, version, "params", "params.yaml", "params", params_digest),
        _code(checkout, version),
        _scans(checkout, registry, version),
    ]


def params_digest(path: Path) -> str:
    """Return the digest of the sections of a params.yaml that shape a model."""
    return provenance.params_digest(params.load(path))


def _model(registry: Registry, version: Version) -> Part:
    try:
        folder = registry.verify(version)
    except MissingFilesError as error:
        return Part("weights", "missing", str(error))
    except GliaflowError as error:
        return Part("weights", "different", str(error))
    count = sum(path.is_file() for path in folder.rglob("*"))
    return Part("weights", "same", f"{count} files of the registered model")


def _artifact(
    registry: Registry,
    version: Version,
    name: str,
    file: str,
    tag: str,
    digest: Callable[[Path], str],
) -> Part:
    try:
        path = registry.artifact(version, file)
    except GliaflowError as error:
        return Part(name, "missing", str(error))
    try:
        same = digest(path) == version.tags.get(f"gliaflow.{tag}")
    except GliaflowError as error:  # params.yaml of another release
        return Part(name, "different", str(error))
    return Part(name, "same" if same else "different", f"{file} of MLflow run {version.run_id}")


def _code(checkout: Project, version: Version) -> Part:
    """Compare the code of the version's commit, or of the work tree, with its digest."""
    expected = version.tags.get("gliaflow.code")
    if provenance.code_of(checkout) == expected:
        return Part("code", "same", "modules of the work tree")
    commit = version.tags.get(COMMIT_TAG, "")
    if not commit:
        return Part("code", "different", "the work tree's is other, and no commit was recorded")
    try:
        digest = provenance.code_at(checkout.root, commit.removesuffix(DIRTY))
    except GliaflowError as error:
        return Part("code", "missing", f"commit {commit} is not here: {error}")
    detail = f"modules at commit {commit[:12]}"
    if digest == expected:
        return Part("code", "same", detail)
    note = ", and the code had uncommitted changes" if commit.endswith(DIRTY) else ""
    return Part("code", "different", detail + note)


def _scans(checkout: Project, registry: Registry, version: Version) -> Part:
    """Hash every slice and mask that the version's manifest lists, here or in DVC's cache."""
    try:
        manifest = stage_tables.read_manifest(registry.artifact(version, "manifest.csv"))
        cached = _cached_scans(checkout, registry.artifact(version, "dvc.lock"))
        listed = list(_listed(manifest))
    except GliaflowError as error:
        return Part("scans", "missing", str(error))
    other, missing, total = [], [], len(listed)
    for file, digest in listed:
        found = [path for path in (checkout.path("raw") / file, cached.get(file)) if path]
        digests = [_sha256(path) for path in found if path.is_file()]
        if not digests:
            missing.append(file)
        elif digest not in digests:
            other.append(file)
    detail = f"{total - len(other) - len(missing)} of {total} files of its manifest"
    if not total:
        return Part("scans", "missing", "its manifest lists no files")
    if missing:
        return Part("scans", "missing", f"{detail}; {len(missing)} are not here: {missing[0]}")
    if other:
        return Part("scans", "different", f"{detail}; {len(other)} are other: {other[0]}")
    return Part("scans", "same", detail)


def _listed(manifest: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield the files that a manifest lists, with their SHA-256."""
    for name, digest in (("file", "sha256"), ("mask_file", "mask_sha256")):
        if not {name, digest} <= set(manifest.columns):
            raise GliaflowError(
                f"the version's manifest has no column {name} or {digest}; its scans cannot be "
                "compared"
            )
        rows = manifest[[name, digest]].dropna()
        yield from zip(rows[name].astype(str), rows[digest].astype(str), strict=True)


def _cached_scans(checkout: Project, lock: Path) -> Mapping[str, Path]:
    """Map the files of data/raw, as a dvc.lock notes them, to their places in DVC's cache."""
    raw = str(checkout.path("raw").relative_to(checkout.root))
    try:
        stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
        (digest,) = (out["md5"] for out in stages["fetch"]["outs"] if out["path"] == raw)
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise GliaflowError(
            f"{lock} does not say which scans the version was built from ({error!r}); expected a "
            "dvc.lock with the stage fetch: restore MLflow's files from a backup"
        ) from error
    cache = Path(commands.dvc(checkout.root, "cache", "dir")) / "files" / "md5"
    listing = cache / digest[:2] / digest[2:]
    if not listing.is_file():
        return {}
    entries = json.loads(listing.read_text(encoding="utf-8"))
    return {entry["relpath"]: cache / entry["md5"][:2] / entry["md5"][2:] for entry in entries}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
