"""Stages run by a real DVC, up to date and not, ended and killed."""

import os
import shutil
import time
from pathlib import Path

import checkouts
import psutil
import pytest

from pipeline.adapters.checkout import commands, project, stage_runs
from pipeline.adapters.process import processes
from pipeline.errors import GliaflowError

KILLED = "^train: killed from outside, as the system does when memory runs out; run the same"
GRAPH = """
stages:
  copy:
    cmd: cp input.txt output.txt
    deps: [input.txt]
    outs: [output.txt]
  count:
    cmd: wc -l output.txt > count.txt
    deps: [output.txt]
    outs: [count.txt]
  fail:
    cmd: "echo reading; echo 'gliaflow: input.txt is empty; fill it' >&2; exit 1"
    deps: [input.txt]
  score:
    cmd: "test ! -e broken && cp input.txt score.json"
    deps: [input.txt]
    metrics:
      - score.json:
          cache: false
  wait:
    cmd: "sh -c 'echo $$ > child; echo waiting; sleep 300'"
    deps: [input.txt]
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repository whose stages `copy` and `count` are up to date."""
    root = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, root.parent / "home")
        (root / ".dvc").mkdir()
        (root / ".dvc" / "config").write_text("[core]\n    check_update = false\n")
        (root / ".dvc" / ".gitignore").write_text("/cache\n/tmp\n")
        (root / "dvc.yaml").write_text(GRAPH)
        (root / "input.txt").write_text("a line\n")
        commands.git(root, "init", "--quiet")
        commands.dvc(root, "repro", "--quiet", "count")
    return root


@pytest.fixture
def root(template, tmp_path, monkeypatch) -> Path:
    isolate(monkeypatch, tmp_path / "home")
    shutil.copytree(template, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


def isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Hide the configuration of the user and the system from git and DVC."""
    home.mkdir(exist_ok=True)
    for name in [name for name in os.environ if name.startswith(("GIT_", "DVC_SITE"))]:
        patch.delenv(name)
    patch.setenv("HOME", str(home))
    patch.setenv("XDG_CONFIG_HOME", str(home))
    patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    patch.setenv("DVC_SITE_CACHE_DIR", str(home / "dvc"))


# changed_stages


def test_stages_without_a_change_are_not_listed(root):
    assert not {"copy", "count"} & stage_runs.changed_stages(root)


def test_a_changed_dependency_makes_its_stage_listed(root):
    (root / "input.txt").write_text("another line\n")
    assert {"copy"} == {"copy", "count"} & stage_runs.changed_stages(root)


def test_a_conflict_in_dvc_lock_is_an_error_and_not_up_to_date(root):
    path = root / "dvc.lock"
    path.write_text(f"<<<<<<< HEAD\n{path.read_text()}=======\n>>>>>>> other\n")
    with pytest.raises(GliaflowError, match=r"`dvc status --json` failed in .*dvc.lock"):
        stage_runs.changed_stages(root)


def test_a_broken_dvc_config_is_an_error_and_not_up_to_date(root):
    (root / ".dvc" / "config").write_text("[core\n")
    with pytest.raises(GliaflowError, match=r"`dvc status --json` failed in .*config"):
        stage_runs.changed_stages(root)


def test_output_that_is_no_json_is_an_error(root, monkeypatch):
    monkeypatch.setattr(commands, "dvc", lambda *_: "Data and pipelines are up to date.")
    with pytest.raises(GliaflowError, match=r"printed no JSON: 'Data and pipelines"):
        stage_runs.changed_stages(root)


# repro_stage


def test_a_stage_runs_alone_and_its_output_is_passed_on(root):
    (root / "input.txt").write_text("a line\nanother\n")
    lines: list[str] = []
    stage_runs.repro_stage(root, "copy", say=lines.append)
    assert (root / "output.txt").read_text() == "a line\nanother\n"
    assert "Running stage 'copy':" in lines
    assert (root / "count.txt").read_text().startswith("1 ")
    assert not [line for line in lines if line.startswith(stage_runs.DVC_HINTS)]


def test_the_error_message_of_a_failed_stage_is_passed_on_alone(root):
    lines: list[str] = []
    with pytest.raises(GliaflowError, match=r"^input.txt is empty; fill it$"):
        stage_runs.repro_stage(root, "fail", say=lines.append)
    assert "reading" in lines


def test_an_output_that_is_not_cached_survives_a_failed_stage(root):
    stage_runs.repro_stage(root, "score", say=lambda _: None)
    assert (root / "score.json").read_text() == "a line\n"
    (root / "broken").touch()
    (root / "input.txt").write_text("another line\n")
    with pytest.raises(GliaflowError):
        stage_runs.repro_stage(root, "score", say=lambda _: None)
    assert (root / "score.json").read_text() == "a line\n"
    (root / "broken").unlink()
    stage_runs.repro_stage(root, "score", say=lambda _: None)
    assert (root / "score.json").read_text() == "another line\n"
    assert list(root.glob(".score*")) == []


def test_an_interrupted_run_ends_dvc_and_the_stage(root):
    class Interrupted(BaseException):
        pass

    def interrupt(line: str) -> None:
        if line == "waiting":
            raise Interrupted

    began = time.monotonic()
    with pytest.raises(Interrupted):
        stage_runs.repro_stage(root, "wait", say=interrupt)
    assert time.monotonic() - began < 60
    assert processes.process_identity(int((root / "child").read_text())) is None


# A killed training


def kill_training_after_an_epoch(line: str) -> None:
    """Kill the training below this process; DVC, between both, survives."""
    if not line.startswith("train: epoch "):
        return
    for process in psutil.Process().children(recursive=True):
        command = process.cmdline()
        if "pipeline.stages" in command and "train" in command:
            process.kill()


def waiting_shell(folder: Path) -> str:
    """A shell that has work left after its command, so that it cannot be replaced by it."""
    shell = folder / "sh"
    shell.write_text('#!/bin/sh\nsh -c "$2"\nexit $?\n')
    shell.chmod(0o755)
    return str(shell)


@pytest.mark.slow
def test_a_killed_training_is_reported_as_killed_and_resumes(tmp_path, monkeypatch):
    root = checkouts.make(tmp_path, train={"epochs": 40, "patience": 40})
    assert checkouts.call(root, "dvc", "repro", "split").returncode == 0
    # The exit code differs between a shell that waits for its command and one it replaces.
    for shell in (shutil.which("bash"), waiting_shell(tmp_path)):
        monkeypatch.setenv("SHELL", shell)
        with pytest.raises(GliaflowError, match=KILLED):
            stage_runs.repro_stage(root, "train", say=kill_training_after_an_epoch)
    checkout = project.find_project(root)
    names = (
        "scans", "manifest", "quarantine", "splits", "model", "history", "checkpoint", "lock",
        "compiled",
    )  # fmt: skip
    paths = {name: checkout.path(name) for name in names} | {"params": root / "params.yaml"}
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        kill_training_after_an_epoch(line)

    with pytest.raises(GliaflowError, match=KILLED):
        stage_runs.run_stage(root, "train", paths, say=say)
    assert any("resumes after epoch" in line for line in lines)
