"""Fixtures: a checkout after a run, without DVC, git or MLflow."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import finished_run
import pytest
import yaml
from making import REPOSITORY, parameters

from pipeline.adapters.checkout.project import Project, find_project


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose model marks every pixel as tumour, with one test patient."""
    root = tmp_path_factory.mktemp("template")
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    params = parameters(gate={"min_tversky": 0.6, "min_patients": 5})
    values = params.model_dump(mode="json", by_alias=True)
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (root / "pipeline").symlink_to(REPOSITORY / "pipeline")
    (root / "data/incoming").mkdir(parents=True)
    project = find_project(root)
    finished_run.write_scans(project)
    finished_run.write_results(project)
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Project:
    root = tmp_path / "checkout"
    shutil.copytree(template, root, symlinks=True)
    return find_project(root)


@pytest.fixture
def change_params(project: Project) -> Callable[..., Project]:
    """A function that edits params.yaml by section, and returns the project as it is then."""

    def change(**sections: dict[str, Any]) -> Project:
        path = project.root / "params.yaml"
        values = yaml.safe_load(path.read_text())
        for name, section in sections.items():
            values[name] |= section
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return find_project(project.root)

    return change
