import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from making import REPOSITORY

import pipeline.stages.__main__ as stages
from pipeline.adapters.checkout import params_file, project
from pipeline.errors import GliaflowError
from pipeline.params import Params

NAMES = "evaluate, fetch, ingest, report, split, train, validate"


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A working directory with dvc.yaml, params.yaml and the code."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "pipeline").symlink_to(REPOSITORY / "pipeline")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def use(monkeypatch) -> Callable[[Callable[..., None]], None]:
    """Make a function the `run` of every stage."""

    def replace(run: Callable[..., None]) -> None:
        monkeypatch.setattr(stages, "_load", lambda name: SimpleNamespace(run=run))

    return replace


# wrong arguments


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["__main__"], ["--help"]])
def test_without_a_known_stage_all_stages_are_named(arguments, capsys):
    assert stages.main(arguments) == 2
    printed = capsys.readouterr().err
    assert f"NAME is one of {NAMES}\n" in printed
    assert "usage: python -m pipeline.stages NAME --key path ..." in printed


def test_an_unknown_stage_is_named(capsys):
    assert stages.main(["nonsense"]) == 2
    assert "gliaflow: there is no stage nonsense; " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--splits"], ["--splits", "a.csv", "--manifest"], ["splits", "a.csv"]]
)
def test_arguments_that_are_no_pairs_are_refused(words, capsys):
    assert stages.main(["split", *words]) == 2
    printed = capsys.readouterr().err
    assert f"gliaflow: split: expected --key path pairs, found {' '.join(words)}\n" in printed


def test_missing_and_unknown_keys_are_named_and_nothing_runs(checkout, use, capsys):
    def run(params: Params, *, code: str, scans: Path, model: Path) -> None:
        raise AssertionError("the stage ran")

    use(run)
    assert stages.main(["train", "--scans", "a", "--modle", "b", "--code", "c"]) == 2
    printed = capsys.readouterr().err
    assert "train: takes --model, --scans; wrong or missing: --code, --model, --modle" in printed


# calls


def test_a_stage_gets_its_paths_and_the_parameters(checkout, use):
    received: dict[str, Any] = {}

    def run(params: Params, *, test_scans: Path, model: Path = Path("default")) -> None:
        received.update(params=params, test_scans=test_scans, model=model)

    use(run)
    params_file.change_params(checkout / "params.yaml", {"train": {"epochs": 977}})
    assert stages.main(["evaluate", "--test-scans", "data/scans"]) == 0
    assert received["params"].train.epochs == 977
    assert received["test_scans"] == Path("data/scans")
    assert received["model"] == Path("default")


def test_the_option_params_names_another_file(checkout, use):
    epochs: list[int] = []
    use(lambda params: epochs.append(params.train.epochs))
    shutil.copy("params.yaml", "other.yaml")
    params_file.change_params(Path("other.yaml"), {"train": {"epochs": 977}})
    assert stages.main(["fetch", "--params", "other.yaml"]) == 0
    assert epochs == [977]


def test_a_stage_that_asks_for_it_gets_the_digest_of_its_code(checkout, use):
    digests: list[str] = []

    def run(params: Params, *, code: str) -> None:
        digests.append(code)

    use(run)
    assert stages.main(["ingest"]) == 0
    assert digests == [project.find_project(REPOSITORY).code_digest("ingest")]


# errors


def test_an_error_that_a_user_can_fix_is_one_line_with_exit_code_1(checkout, use, capsys):
    def run(params: Params) -> None:
        raise GliaflowError("manifest.csv is empty; run `dvc repro ingest`")

    use(run)
    assert stages.main(["split"]) == 1
    assert capsys.readouterr().err == (
        "gliaflow: split: manifest.csv is empty; run `dvc repro ingest`\n"
    )


def test_a_missing_params_file_is_an_error_that_a_user_can_fix(checkout, use, capsys):
    use(lambda params: None)
    assert stages.main(["split", "--params", "missing.yaml"]) == 1
    assert "gliaflow: split: missing.yaml does not exist" in capsys.readouterr().err


def test_an_interrupt_ends_with_130(checkout, use):
    def run(params: Params) -> None:
        raise KeyboardInterrupt

    use(run)
    assert stages.main(["split"]) == 130


def test_a_bug_keeps_its_traceback(checkout, use):
    def run(params: Params) -> None:
        raise ZeroDivisionError

    use(run)
    with pytest.raises(ZeroDivisionError):
        stages.main(["split"])


def test_a_missing_package_is_named(tmp_path):
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from pipeline.stages.__main__ import main; sys.exit(main(['split', '--splits', 'a']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "gliaflow: split: this Python lacks the package pandas; run `make env`" in done.stderr


def test_the_module_ends_with_the_exit_code():
    command = [sys.executable, "-m", "pipeline.stages", "nonsense"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no stage nonsense" in done.stderr


def edit(checkout: Path, before: str, after: str) -> None:
    path = checkout / "params.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_parameter_that_is_edited_while_its_stage_runs_fails_the_stage(checkout, use, capsys):
    use(lambda params: edit(checkout, "salt: glia-1534", "salt: other"))
    assert stages.main(["split"]) == 1
    assert "params.yaml was edited while the stage ran (split.salt: glia-1534 -> other)" in (
        capsys.readouterr().err
    )


def test_an_edit_of_what_a_stage_does_not_depend_on_is_no_error(checkout, use):
    use(lambda params: edit(checkout, "poll_seconds: 60", "poll_seconds: 61"))
    assert stages.main(["split"]) == 0


def test_a_parameter_named_by_itself_counts_and_its_neighbours_do_not(checkout, use):
    use(lambda params: edit(checkout, "min_patients: 10", "min_patients: 11"))
    assert stages.main(["ingest"]) == 0
    use(lambda params: edit(checkout, "height_px: 256", "height_px: 512"))
    assert stages.main(["ingest"]) == 1
