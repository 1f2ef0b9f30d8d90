"""Rebuild a version from scratch in a separate clone, and compare the results.

Nothing of the checkout's cache or outputs is used: the clone fetches, trains and evaluates anew.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from pipeline.adapters.checkout import commands, params_file, provenance, stage_runs
from pipeline.adapters.checkout.project import Project, find_project
from pipeline.adapters.storage import stage_tables
from pipeline.adapters.tracking.registry import Registry
from pipeline.adapters.tracking.versions import Version
from pipeline.app import verification
from pipeline.domain import comparison
from pipeline.domain.comparison import Difference
from pipeline.errors import GliaflowError

Verdict = Literal["identical", "within seed noise", "different"]
LAST_STAGE = "evaluate"


@dataclass(frozen=True)
class Reproduction:
    """What a rebuilt version has in common with the registered one.

    verdict: `within seed noise` if the mean test Tversky is no further away than those of
        replicates, which differ in the seed alone.
    parts: `code`, `data`, `split`, `params` and `weights`, each the same or not.
    difference: rebuilt minus registered, test Tversky on the same patients.
    noise: differences of the replicates to the rebuilt model.
    """

    verdict: Verdict
    parts: dict[str, bool]
    difference: Difference
    noise: tuple[float, ...]


def reproduce(
    project: Project,
    registry: Registry,
    version: Version,
    *,
    replicates: int,
    say: Callable[[str], None],
) -> Reproduction:
    """Rebuild a version in a temporary clone.

    Args:
        replicates: trainings with other seeds, to measure noise if the weights differ; 0: none,
            and other weights are `different`.
        say: receives every line that the stages print.

    Raises:
        GliaflowError: the version's code is in no commit, a file of its run is missing, or a
            stage failed.
    """
    with tempfile.TemporaryDirectory(prefix="gliaflow-reproduce-") as folder:
        clone = _clone(project, registry, version, Path(folder) / "clone")
        registered = stage_tables.read_patients(registry.artifact(version, "patients.csv"))
        rebuilt = _build(clone, say)
        parts = _same_parts(find_project(clone.root), version)
        difference = _difference(rebuilt, registered, seed=clone.params.evaluate.seed)
        noise: tuple[float, ...] = ()
        if not parts["weights"]:
            noise = _noise(clone, rebuilt, count=replicates, say=say)
        return Reproduction(_verdict(parts, difference, noise), parts, difference, noise)


def _clone(project: Project, registry: Registry, version: Version, target: Path) -> Project:
    """Clone the checkout at the version's commit, with its parameters and the batches of scans."""
    commit = version.tags.get(verification.COMMIT_TAG, "")
    if not commit or commit.endswith(verification.DIRTY):
        raise GliaflowError(
            f"version {version.version} was built with code that is in no commit "
            f"({commit or 'outside git'}); it cannot be rebuilt"
        )
    commands.git(project.root, "clone", "--quiet", "--no-checkout", str(project.root), str(target))
    commands.git(target, "checkout", "--quiet", "--detach", commit)
    shutil.copyfile(registry.artifact(version, "params.yaml"), target / "params.yaml")
    (target / "dvc.lock").unlink(missing_ok=True)
    clone = find_project(target)
    # A cache that other checkouts share would give back their results.
    commands.dvc(target, "config", "--local", "cache.dir", str(target / ".dvc" / "cache"))
    for batch in _batches(registry, version):
        source = project.path("incoming") / batch
        if source.is_dir():
            shutil.copytree(source, clone.path("incoming") / batch, dirs_exist_ok=True)
    return clone


def _batches(registry: Registry, version: Version) -> set[str]:
    """Return the batches that the version's manifest lists files of."""
    manifest = stage_tables.read_manifest(registry.artifact(version, "manifest.csv"))
    files = pd.concat([manifest.file, manifest.mask_file]).dropna()
    return {str(file).partition("/")[0] for file in files}


def _build(clone: Project, say: Callable[[str], None]) -> pd.DataFrame:
    """Run the stages up to `evaluate`; return the scores of patients."""
    for stage in clone.order():
        stage_runs.repro_stage(clone.root, stage, say=say)
        if stage == LAST_STAGE:
            break
    return stage_tables.read_patients(clone.path("patients"))


def _same_parts(clone: Project, version: Version) -> dict[str, bool]:
    made_of = asdict(provenance.project_lineage(clone))
    return {
        name: digest == version.tags.get(f"gliaflow.{name}") for name, digest in made_of.items()
    }


def _difference(rebuilt: pd.DataFrame, other: pd.DataFrame, *, seed: int) -> Difference:
    """Compare the test Tversky of two tables of patients, on the patients of both."""
    scores = [
        table[table.split == "test"].set_index("patient").tversky for table in (rebuilt, other)
    ]
    differences = (scores[0] - scores[1]).dropna()
    if differences.empty:
        raise GliaflowError("the rebuilt and the registered version have no test patient in common")
    return comparison.paired_difference(differences.to_list(), seed=seed)


def _noise(
    clone: Project, rebuilt: pd.DataFrame, *, count: int, say: Callable[[str], None]
) -> tuple[float, ...]:
    """Train with other seeds; return the differences of their mean test Tversky."""
    section = clone.params.train
    noise = []
    for number in range(1, count + 1):
        seed = {"train": {"seed": section.seed + number}}
        params_file.change_params(clone.root / "params.yaml", seed)
        replicate = replace(clone, params=find_project(clone.root).params)
        table = _build(replicate, say)
        noise.append(_difference(table, rebuilt, seed=clone.params.evaluate.seed).mean)
    return tuple(noise)


def _verdict(parts: dict[str, bool], difference: Difference, noise: Sequence[float]) -> Verdict:
    if all(parts.values()):
        return "identical"
    inputs_differ = not all(same for name, same in parts.items() if name != "weights")
    if inputs_differ or not noise or abs(difference.mean) > max(map(abs, noise)):
        return "different"
    return "within seed noise"
