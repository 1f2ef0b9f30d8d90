import shutil
from pathlib import Path

import pytest
from making import REPOSITORY

from pipeline import params
from pipeline.adapters.checkout import params_file, project
from pipeline.adapters.checkout.project import Project
from pipeline.errors import GliaflowError

STAGES = ["fetch", "ingest", "validate", "split", "train", "evaluate", "report"]
GRAPH = """
stages:
  first:
    cmd: run first --table a.csv
    deps: [a.py, shared.py, data]
    outs: [a.csv]
  second:
    cmd: run second --table a.csv --page b.html
    deps: [b.py, shared.py, a.csv]
    outs: [b.html]
"""


@pytest.fixture(scope="module")
def repository() -> Project:
    return project.find_project(REPOSITORY)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout with two stages that share a module, below a folder with a blank in its name."""
    root = tmp_path / "my scans"
    root.mkdir()
    (root / "dvc.yaml").write_text(GRAPH)
    shutil.copy(REPOSITORY / "params.yaml", root / "params.yaml")
    for name in ("a.py", "b.py", "shared.py", "unlisted.py"):
        (root / name).write_text(name)
    return root


# find_root and find_project


def test_the_project_is_found_from_a_subfolder(repository):
    snapshot = project.find_project(REPOSITORY / "tests" / "adapters")
    assert snapshot.root == REPOSITORY
    assert snapshot.stages == repository.stages


def test_a_project_in_a_folder_with_blanks_is_found(checkout):
    assert project.find_project(checkout).path("table") == checkout / "a.csv"


def test_a_folder_outside_any_checkout_is_an_error(tmp_path):
    with pytest.raises(GliaflowError, match=rf"{tmp_path} is not inside a gliaflow checkout"):
        project.find_project(tmp_path)


def test_dvc_yaml_alone_is_no_checkout(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(GliaflowError, match=r"is not inside a gliaflow checkout"):
        project.find_project(tmp_path)


# stages


def test_stages_run_from_fetch_to_report(repository):
    assert repository.order() == STAGES


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
def test_files_are_found_by_the_key_that_stages_use(repository, key, path):
    assert repository.path(key) == REPOSITORY / path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stages: [",
        "vars: []\n",
        "stages:\n",
        "stages:\n  a: {cmd: a, deps: [b], outs: [a]}\n  b: {cmd: b, deps: [a], outs: [b]}\n",
    ],
    ids=["empty", "no YAML", "other keys", "no stages", "cycle"],
)
def test_dvc_yaml_without_usable_stages_is_an_error(checkout, text):
    (checkout / "dvc.yaml").write_text(text)
    with pytest.raises(GliaflowError, match=r"dvc.yaml does not list stages"):
        project.find_project(checkout)


# code_digest


def test_a_stage_depends_on_the_modules_in_its_deps(checkout):
    snapshot = project.find_project(checkout)
    before = snapshot.code_digest("first")
    (checkout / "b.py").write_text("changed")
    (checkout / "unlisted.py").write_text("changed")
    assert snapshot.code_digest("first") == before
    (checkout / "a.py").write_text("changed")
    assert snapshot.code_digest("first") != before


def test_a_shared_module_changes_the_digest_of_both_stages(checkout):
    snapshot = project.find_project(checkout)
    before = [snapshot.code_digest(stage) for stage in ("first", "second")]
    (checkout / "shared.py").write_text("changed")
    after = [snapshot.code_digest(stage) for stage in ("first", "second")]
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_the_order_of_stages_does_not_change_the_digest(checkout):
    snapshot = project.find_project(checkout)
    assert snapshot.code_digest("first", "second") == snapshot.code_digest("second", "first")


def test_a_listed_module_that_does_not_exist_is_an_error(checkout):
    (checkout / "shared.py").unlink()
    with pytest.raises(GliaflowError, match=r"dvc.yaml lists .*shared.py as a dependency"):
        project.find_project(checkout).code_digest("first")


# parameters


def test_parameters_are_those_beside_dvc_yaml(checkout):
    params_file.change_params(checkout / "params.yaml", {"train": {"epochs": 977}})
    assert project.find_project(checkout).params.train.epochs == 977


def test_a_later_edit_does_not_change_the_snapshot(checkout):
    snapshot = project.find_project(checkout)
    epochs = snapshot.params.train.epochs
    params_file.change_params(checkout / "params.yaml", {"train": {"epochs": 977}})
    assert snapshot.params.train.epochs == epochs


def test_unchanged_parameters_are_not_refused(checkout):
    snapshot = project.find_project(checkout)
    path = checkout / "params.yaml"
    path.write_text("# another comment\n" + path.read_text())
    snapshot.refuse_changed_params()


def test_changed_parameters_are_refused_with_both_values(checkout):
    params_file.change_params(checkout / "params.yaml", {"train": {"epochs": 40, "batch": 16}})
    snapshot = project.find_project(checkout)
    params_file.change_params(checkout / "params.yaml", {"train": {"epochs": 41}})
    with pytest.raises(GliaflowError) as refused:
        snapshot.refuse_changed_params()
    assert "train.epochs: 40 -> 41" in str(refused.value)
    assert "train.batch" not in str(refused.value)


def test_a_project_with_other_parameters_leaves_the_original_as_it_was(checkout):
    snapshot = project.find_project(checkout)
    values = snapshot.params.model_dump(mode="json", by_alias=True)
    values["train"]["epochs"] = 977
    changed = snapshot.with_params(params.parse(values))
    assert changed.params.train.epochs == 977
    assert snapshot.params.train.epochs != 977
    assert (changed.root, changed.stages) == (snapshot.root, snapshot.stages)
