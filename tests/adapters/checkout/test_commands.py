import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.adapters.checkout import commands
from pipeline.adapters.process import parent_watch, processes
from pipeline.errors import GliaflowError


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """An empty git repository, without any configuration of the user."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in [name for name in os.environ if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))]:
        monkeypatch.delenv(name)
    repository = tmp_path / "repository"
    repository.mkdir()
    commands.git(repository, "init", "--quiet", "--initial-branch", "main")
    return repository


def test_git_returns_its_output_without_blanks_around(root):
    assert commands.git(root, "symbolic-ref", "HEAD") == "refs/heads/main"


def test_git_commits_without_a_configured_author(root):
    commands.git(root, "commit", "--quiet", "--allow-empty", "--message", "first")
    assert commands.git(root, "log", "-1", "--format=%an <%ae>") == "gliaflow <gliaflow@localhost>"


def test_git_gets_additional_variables(root, tmp_path):
    index = tmp_path / "another.index"
    commands.git(root, "read-tree", "--empty", env={"GIT_INDEX_FILE": str(index)})
    assert index.exists()


def test_a_failing_git_is_an_error_with_command_folder_and_output(root):
    with pytest.raises(GliaflowError) as failed:
        commands.git(root, "rev-parse", "--verify", "no-such-branch")
    assert f"`git rev-parse --verify no-such-branch` failed in {root}: fatal" in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_failing_git_returns_its_output_if_not_checked(root):
    branch = commands.git(root, "rev-parse", "--verify", "--quiet", "no-such-branch", check=False)
    assert branch == ""


def test_a_missing_git_is_an_error_that_names_it(root, monkeypatch):
    monkeypatch.setenv("PATH", str(root))
    with pytest.raises(GliaflowError, match=r"`git` is not installed"):
        commands.git(root, "status")


def test_a_failing_dvc_is_an_error_with_the_command_a_person_would_type(root):
    with pytest.raises(GliaflowError, match=r"^`dvc status` failed in .*not inside of a DVC"):
        commands.dvc(root, "status")


def test_python_means_this_interpreter_in_the_environment(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    environment = commands.environment()
    assert environment["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/usr/bin"
    code = "import sys; print(sys.executable)"
    done = subprocess.run(
        ["sh", "-c", f"python -c '{code}'"], env=environment, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()).resolve() == Path(sys.executable).resolve()


def test_stages_end_with_the_process_that_started_them():
    identity = commands.environment()[parent_watch.VARIABLE]
    assert identity == processes.process_identity(os.getpid())
