"""Lineage of the model in the work tree, from the files of a finished run."""

from pathlib import Path

import yaml

from pipeline.adapters.checkout import commands
from pipeline.adapters.checkout.project import Project, code_files
from pipeline.adapters.storage import files
from pipeline.domain import lineage
from pipeline.domain.lineage import Lineage
from pipeline.params import Params

# Sections of params.yaml that shape the model and its scores. The source of the scans and
# the layout of the report do not: the manifest holds the scans' digests.
SECTIONS = ("validate", "split", "train", "evaluate")
STAGES = ("ingest", "validate", "split", "train", "evaluate")


def project_lineage(project: Project) -> Lineage:
    """Return the lineage of the model that the stages wrote.

    Raises:
        GliaflowError: a stage has not run.
    """
    return Lineage(
        code=code_of(project),
        data=files.sha256(project.path("manifest")),
        split=files.sha256(project.path("splits")),
        params=params_digest(project.params),
        weights=files.sha256(project.path("model")),
    )


def code_of(project: Project) -> str:
    """Return the digest of the modules that shape a model, as they are in the work tree."""
    return project.code_digest(*STAGES)


def code_at(root: Path, commit: str) -> str:
    """Return the digest of these modules at a commit.

    Raises:
        GliaflowError: the commit is unknown.
    """
    stages = yaml.safe_load(commands.git(root, "show", f"{commit}:dvc.yaml"))["stages"]
    return lineage.digest_of_files(
        {
            path: commands.git_bytes(root, "show", f"{commit}:{path}")
            for path in code_files(stages, *STAGES)
        }
    )


def params_digest(params: Params) -> str:
    """Return the digest of the sections that shape the model and its scores."""
    values = params.model_dump(mode="json", by_alias=True)
    return lineage.digest_of_mapping({section: values[section] for section in SECTIONS})
