"""Bring the data, parameters and model of a version back into the work tree."""

import shutil
from pathlib import Path

from pipeline.adapters.checkout import commands, provenance, stage_runs
from pipeline.adapters.checkout.project import Project, find_project
from pipeline.adapters.storage import files
from pipeline.adapters.tracking.registry import Registry
from pipeline.adapters.tracking.versions import Version
from pipeline.app import verification
from pipeline.errors import GliaflowError

RESTORED = ("params.yaml", "dvc.lock")


def restore(project: Project, registry: Registry, version: Version) -> str:
    """Restore a version, after which `dvc repro` has nothing to run.

    Parameters and dvc.lock come from MLflow, data and model from DVC's cache or remote. All is
    compared with the version's lineage.

    Returns:
        What was done, as a sentence.

    Raises:
        GliaflowError: the work tree has changes or other code, a file is missing or other, or an
            output was edited. Parameters and dvc.lock are put back, and what they list, as far
            as DVC's cache has it.
    """
    _refuse_changes(project)
    _refuse_other_code(project, version)
    found = {name: registry.artifact(version, name) for name in RESTORED}
    if verification.params_digest(found["params.yaml"]) != version.tags.get("gliaflow.params"):
        raise GliaflowError(
            f"params.yaml of version {version.version} was changed in MLflow; nothing was restored"
        )
    paths = [*(project.root / name for name in RESTORED), project.path("scores")]
    before = {path: _content(path) for path in paths}
    try:
        for name, path in found.items():
            shutil.copyfile(path, project.root / name)
        _check_out(project)
        _copy_scores(project, registry, version)
        _compare(find_project(project.root), version)
    except BaseException:
        for path, content in before.items():
            _put_back(path, content)
        if before[project.root / "dvc.lock"] is not None:
            commands.dvc(project.root, "checkout", "--quiet", check=False)
        raise
    return (
        f"version {version.version} is restored: {', '.join(RESTORED)}, data and model; `dvc repro` "
        "has nothing to run. `git restore params.yaml dvc.lock` and `dvc checkout` undo it."
    )


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _put_back(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)


def _refuse_changes(project: Project) -> None:
    changes = commands.git(project.root, "status", "--porcelain", "--untracked-files=no")
    if changes:
        raise GliaflowError(
            f"the work tree has changes ({changes.splitlines()[0].strip()}); commit or stash them, "
            "then restore again"
        )


def _refuse_other_code(project: Project, version: Version) -> None:
    if provenance.code_of(project) == version.tags.get("gliaflow.code"):
        return
    commit = version.tags.get(verification.COMMIT_TAG, "")
    if not commit or commit.endswith(verification.DIRTY):
        raise GliaflowError(
            f"version {version.version} was built with code that is in no commit "
            f"({commit or 'outside git'}); it cannot be restored here"
        )
    raise GliaflowError(
        f"version {version.version} was built with other code; check it out first: "
        f"`git checkout {commit}`"
    )


def _check_out(project: Project) -> None:
    """Put the files that dvc.lock lists into the work tree, from the remote if there is one.

    metrics.json is not among them: DVC does not cache it.
    """
    has_remote = commands.dvc(project.root, "config", "core.remote")
    # Without --force: DVC refuses to replace outputs that were edited and are in no cache.
    commands.dvc(project.root, "pull" if has_remote else "checkout", "--quiet")


def _copy_scores(project: Project, registry: Registry, version: Version) -> None:
    """Copy metrics.json from MLflow; DVC compares it with dvc.lock afterwards."""
    target = project.path("scores")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(registry.artifact(version, target.name), target)


def _compare(project: Project, version: Version) -> None:
    """Make sure that the restored files are those of the version.

    Raises:
        GliaflowError: one is other, or DVC would run a stage.
    """
    for key, tag in (("model", "weights"), ("manifest", "data"), ("splits", "split")):
        path = project.path(key)
        if files.sha256(path) != version.tags.get(f"gliaflow.{tag}"):
            raise GliaflowError(
                f"{path} is not the one that version {version.version} was registered with; "
                "nothing was restored"
            )
    stages = stage_runs.changed_stages(project.root)
    if stages:
        raise GliaflowError(
            f"after restoring version {version.version} DVC would run {', '.join(sorted(stages))}; "
            "nothing was restored: check out the commit it was built at"
        )
