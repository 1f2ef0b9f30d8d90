"""Where the model in the work tree came from, read from the files of a finished run."""

from pipeline.adapters import files
from pipeline.adapters.project import Project
from pipeline.domain import lineage
from pipeline.domain.lineage import Lineage
from pipeline.params import Params

# Sections of params.yaml that shape the model and its scores. Where scans came from and how
# the page looks do not: the manifest holds what came.
SHAPING = ("validate", "split", "train", "evaluate")
STAGES = ("ingest", "validate", "split", "train", "evaluate")


def of_project(project: Project) -> Lineage:
    """The lineage of the model that the stages left.

    Raises:
        GliaflowError: a stage has not run.
    """
    return Lineage(
        code=lineage.of_files(project.code_of(*STAGES)),
        data=files.sha256(project.path("manifest")),
        split=files.sha256(project.path("splits")),
        params=_params_digest(project.params()),
        weights=files.sha256(project.path("model")),
    )


def _params_digest(params: Params) -> str:
    values = params.model_dump(mode="json", by_alias=True)
    return lineage.of_mapping({section: values[section] for section in SHAPING})
