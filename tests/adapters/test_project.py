from pathlib import Path

import pytest
from making import REPOSITORY

from pipeline.adapters import project
from pipeline.errors import GliaflowError

STAGES = ["fetch", "ingest", "validate", "split", "train", "evaluate", "report"]


@pytest.fixture
def here() -> project.Project:
    return project.find(REPOSITORY)


def test_the_project_is_found_from_a_folder_below(here):
    found = project.find(REPOSITORY / "tests" / "adapters")
    assert found.root == REPOSITORY
    assert found.stages == here.stages


def test_stages_run_from_fetch_to_report(here):
    assert here.order() == STAGES


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("raw", "data/raw"),
        ("manifest", "data/manifest.csv"),
        ("quarantine", "data/quarantine.csv"),
        ("splits", "data/splits.csv"),
        ("model", "models/resunet.keras"),
        ("history", "models/history.csv"),
        ("scores", "reports/metrics.json"),
        ("patients", "reports/patients.csv"),
        ("docs", "reports/validation"),
        ("index", "reports/index.html"),
    ],
)
def test_files_are_found_by_the_key_that_stages_use(here, key, path):
    assert here.path(key) == REPOSITORY / path


def test_parameters_are_those_beside_dvc_yaml(here):
    assert here.params().split.salt


def test_code_of_a_stage_is_every_module_it_depends_on(here):
    code = here.code_of("split")
    assert "pipeline/stages/split.py" in code
    assert (
        code["pipeline/domain/splits.py"]
        == (REPOSITORY / "pipeline" / "domain" / "splits.py").read_bytes()
    )
    assert all(name.endswith(".py") for name in code)


def test_code_of_two_stages_holds_each_module_once_in_order(here):
    both = list(here.code_of("split", "validate"))
    assert both == sorted({*here.code_of("split"), *here.code_of("validate")})


def test_a_folder_outside_any_project_is_refused(tmp_path):
    with pytest.raises(GliaflowError, match=rf"{tmp_path} is in no gliaflow repository"):
        project.find(tmp_path)


def test_dvc_yaml_alone_is_no_project(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(GliaflowError, match=r"is in no gliaflow repository"):
        project.find(tmp_path)


@pytest.mark.parametrize("text", ["", "stages: [", "vars: []\n", "stages:\n"])
def test_dvc_yaml_without_stages_is_refused(tmp_path, text):
    for name, body in (("dvc.yaml", text), ("params.yaml", "")):
        (tmp_path / name).write_text(body)
    with pytest.raises(GliaflowError, match=r"dvc.yaml does not list stages"):
        project.find(tmp_path)


def test_a_project_in_a_folder_with_blanks_is_found(tmp_path):
    root = Path(tmp_path / "my scans")
    root.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        (root / name).write_bytes((REPOSITORY / name).read_bytes())
    assert project.find(root).path("splits") == root / "data" / "splits.csv"
