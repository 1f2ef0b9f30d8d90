"""Push, commit and notify, with real git and DVC repositories."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from making import POLICY, REPOSITORY, content

from pipeline.adapters.checkout.project import Project, find_project
from pipeline.adapters.process import processes
from pipeline.app import follow_up
from pipeline.domain.decisions import Candidate, ChampionChange, DecisionRecord, Score
from pipeline.domain.gate import Reason
from pipeline.errors import GliaflowError

GRAPH = """
stages:
  fetch:
    cmd: sh copy.sh --incoming data/incoming --raw data/raw
    deps: [copy.sh, data/incoming]
    outs: [data/raw]
"""
DECISION = DecisionRecord(
    verdict="promote",
    reasons=(Reason("test Tversky", "passed", "0.91 » 0.90 – besser"),),
    candidate=Candidate(3, "5fd1a2", Score(0.91, 0.88, 0.94, 17)),
    champion=ChampionChange(before=2, after=3),
    policy=POLICY,
    when="2026-05-12T10:00:00+00:00",
    who="Ada Roe",
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small repository under git and DVC, with one batch that neither tracks yet."""
    root = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, root.parent / "home")
        for folder in (".dvc", "data/incoming/march/P", ".local"):
            (root / folder).mkdir(parents=True)
        (root / ".dvc" / "config").write_text("[core]\n    check_update = false\n")
        # DVC skips what git ignores. params.yaml: a Project holds its parameters.
        for name in (".gitignore", ".dvc/.gitignore", "params.yaml"):
            shutil.copy(REPOSITORY / name, root / name)
        (root / "dvc.yaml").write_text(GRAPH)
        (root / "copy.sh").write_text('cp -r "$2" "$4"\n')
        (root / "data" / "incoming" / "march" / "P" / "P_1.tif").write_bytes(b"a slice")
        git(root, "init", "--quiet", "--initial-branch", "main")
        dvc(root, "repro", "--quiet")
        git(root, "add", ".")
        git(root, "rm", "--quiet", "--cached", "dvc.lock")
        git(root, "commit", "--quiet", "--message", "first")
        yield root


@pytest.fixture
def root(template, tmp_path, monkeypatch) -> Path:
    isolate(monkeypatch, tmp_path / "home")
    shutil.copytree(template, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


@pytest.fixture
def project(root) -> Project:
    return find_project(root)


def isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Hide the user's git and DVC configuration, and set an author."""
    home.mkdir(exist_ok=True)
    for name in [name for name in os.environ if name.startswith(("GIT_", "DVC_SITE"))]:
        patch.delenv(name)
    patch.setenv("HOME", str(home))
    patch.setenv("XDG_CONFIG_HOME", str(home))
    patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    patch.setenv("DVC_SITE_CACHE_DIR", str(home / "dvc"))
    for who in ("AUTHOR", "COMMITTER"):
        patch.setenv(f"GIT_{who}_NAME", "a person")
        patch.setenv(f"GIT_{who}_EMAIL", "person@localhost")


def git(root: Path, *arguments: str) -> str:
    return _output(root, "git", *arguments)


def dvc(root: Path, *arguments: str) -> str:
    return _output(root, sys.executable, "-m", "dvc", *arguments)


def _output(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def add_remote(root: Path, url: Path) -> None:
    config = f'[core]\n    remote = store\n[remote "store"]\n    url = {url}\n'
    (root / ".dvc" / "config.local").write_text(config)


def error_message(call: Any, *arguments: Any) -> str:
    """Return the message of the GliaflowError that a call raises; it must be one line."""
    with pytest.raises(GliaflowError) as error:
        call(*arguments)
    assert str(error.value).strip()
    assert "\n" not in str(error.value)
    return str(error.value)


# push


def test_without_a_remote_nothing_is_pushed_and_the_message_says_how_to_add_one(root):
    summary = follow_up.push(root)
    assert "no DVC remote is configured" in summary
    assert "dvc remote add" in summary


def test_a_configuration_that_cannot_be_read_is_not_taken_for_a_missing_remote(root):
    with (root / ".dvc" / "config").open("a") as config:
        config.write("<<<<<<< a conflict\n")
    with pytest.raises(GliaflowError, match=r"`dvc config core.remote` failed"):
        follow_up.push(root)


def test_a_push_brings_scans_and_batches_to_the_remote(root, project, tmp_path):
    add_remote(root, tmp_path / "store")
    follow_up.track_batches(root, project.path("incoming"))
    assert follow_up.push(root) == "everything is at the DVC remote store"
    for kept in ("cache", "tmp"):
        shutil.rmtree(root / ".dvc" / kept)
    for lost in ("raw", "incoming/march"):
        shutil.rmtree(root / "data" / lost)
    dvc(root, "pull", "--quiet")
    assert content(root / "data" / "incoming" / "march") == {"P/P_1.tif": b"a slice"}
    assert content(root / "data" / "raw") == {"march/P/P_1.tif": b"a slice"}


def test_a_remote_that_refuses_is_an_error_message(root, tmp_path):
    (tmp_path / "file").write_text("no folder")
    add_remote(root, tmp_path / "file" / "store")
    assert "dvc push" in error_message(follow_up.push, root)


def test_files_that_only_the_remote_has_do_not_count_as_missing(root, tmp_path):
    add_remote(root, tmp_path / "store")
    follow_up.push(root)
    for kept in (".dvc/cache", "data/raw"):
        shutil.rmtree(root / kept)
    assert follow_up.push(root) == "everything is at the DVC remote store"


# track_batches


def test_a_new_batch_gets_a_dvc_file_and_a_tracked_batch_keeps_its_file(root, project):
    incoming = project.path("incoming")
    follow_up.track_batches(root, incoming)
    first = (incoming / "march.dvc").read_bytes()
    (incoming / "april" / "P").mkdir(parents=True)
    (incoming / "april" / "P" / "P_2.tif").write_bytes(b"another slice")
    follow_up.track_batches(root, incoming)
    assert sorted(path.name for path in incoming.glob("*.dvc")) == ["april.dvc", "march.dvc"]
    assert (incoming / "march.dvc").read_bytes() == first
    assert (incoming / "march" / "P" / "P_1.tif").read_bytes() == b"a slice"


def test_without_batches_there_is_nothing_to_track(root, project):
    shutil.rmtree(project.path("incoming") / "march")
    follow_up.track_batches(root, project.path("incoming"))
    assert not list(project.path("incoming").glob("*.dvc"))


# commit


def track(root: Path, batch: str, digest: str) -> str:
    """Write the file that `dvc add` leaves beside a batch; return its text."""
    text = f"outs:\n- md5: {digest}.dir\n  path: {batch}\n"
    (root / "data" / "incoming" / f"{batch}.dvc").write_text(text)
    return text


def files_at(root: Path, revision: str) -> dict[str, str]:
    """Return every file of a commit: path to content."""
    names = git(root, "ls-tree", "-r", "--name-only", revision).split()
    return {name: git(root, "show", f"{revision}:{name}") for name in names}


def snapshot(root: Path) -> dict[str, Any]:
    """Return everything a user sees of a checkout: branch, commit, index, status, files."""
    return {
        "branch": git(root, "rev-parse", "--abbrev-ref", "HEAD"),
        "commit": git(root, "rev-parse", "HEAD"),
        "index": git(root, "ls-files", "--stage"),
        "status": git(root, "status", "--porcelain", "--ignored"),
        "files": {k: v for k, v in content(root).items() if not k.startswith(".git/")},
    }


def test_a_commit_adds_dvc_lock_and_batches_to_the_tree_of_head(root, project):
    march = track(root, "march", "1" * 32)
    summary = follow_up.commit(project, DECISION)
    assert "dvc.lock" in summary and "data/incoming/march.dvc" in summary and "retrained" in summary
    new = {"dvc.lock": (root / "dvc.lock").read_text(), "data/incoming/march.dvc": march}
    assert files_at(root, "retrained") == files_at(root, "main") | new
    assert git(root, "rev-parse", "retrained^") == git(root, "rev-parse", "main")


def test_the_commit_message_names_the_decision_and_the_model(root, project):
    follow_up.commit(project, DECISION)
    message = git(root, "log", "-1", "--format=%B", "retrained")
    assert message.strip() == "Promoted: version 3 is the champion.\n\ndigest 5fd1a2"


def test_a_commit_changes_neither_work_tree_nor_index_nor_branch(root, project):
    track(root, "march", "1" * 32)
    (root / "staged").write_text("staged, and then")
    git(root, "add", "staged")
    (root / "staged").write_text("changed again")
    (root / "params.yaml").write_text("changed: true\n")
    (root / "untracked").write_text("untracked")
    git(root, "rm", "--quiet", "--cached", "copy.sh")
    before = snapshot(root)
    follow_up.commit(project, DECISION)
    assert snapshot(root) == before
    assert set(files_at(root, "retrained")) - set(files_at(root, "main")) == {
        "dvc.lock",
        "data/incoming/march.dvc",
    }
    committed = (REPOSITORY / "params.yaml").read_text()
    assert files_at(root, "retrained")["params.yaml"] == committed


def test_a_commit_changes_nothing_while_its_branch_is_checked_out(root, project):
    git(root, "checkout", "--quiet", "-b", "retrained")
    before = snapshot(root)
    with suppress(GliaflowError):  # an error is as good
        follow_up.commit(project, DECISION)
    assert snapshot(root) == before


def test_the_same_state_is_not_committed_twice(root, project):
    follow_up.commit(project, DECISION)
    first = git(root, "rev-parse", "retrained")
    summary = follow_up.commit(project, DECISION)
    assert summary == "the branch retrained holds this state already"
    assert git(root, "rev-parse", "retrained") == first


def test_the_next_commit_has_the_last_one_as_its_parent(root, project):
    track(root, "march", "1" * 32)
    follow_up.commit(project, DECISION)
    first = git(root, "rev-parse", "retrained")
    april = track(root, "april", "2" * 32)
    follow_up.commit(project, DECISION)
    assert git(root, "rev-parse", "retrained^") == first
    assert files_at(root, "retrained") == files_at(root, first.strip()) | {
        "data/incoming/april.dvc": april
    }


def test_a_state_on_the_current_branch_is_not_reported_as_on_the_other(root, project):
    git(root, "add", "dvc.lock")
    git(root, "commit", "--quiet", "--message", "by hand")
    summary = follow_up.commit(project, DECISION)
    branch_exists = bool(git(root, "branch", "--list", "retrained"))
    assert branch_exists or "the branch retrained holds" not in summary


def test_a_commit_needs_no_local_folder(root, project):
    (root / ".local").rmdir()
    follow_up.commit(project, DECISION)
    assert "dvc.lock" in files_at(root, "retrained")


def test_a_commit_needs_no_author_in_the_git_configuration(root, project, monkeypatch):
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{who}_NAME")
        monkeypatch.delenv(f"GIT_{who}_EMAIL")
    follow_up.commit(project, DECISION)
    assert git(root, "log", "-1", "--format=%an", "retrained").strip() == "gliaflow"


def test_a_commit_outside_git_is_an_error_message(root, project):
    shutil.rmtree(root / ".git")
    assert "not a git repository" in error_message(follow_up.commit, project, DECISION)


def test_a_missing_dvc_lock_is_named_and_no_branch_is_created(root, project):
    (root / "dvc.lock").unlink()
    assert "dvc.lock" in error_message(follow_up.commit, project, DECISION)
    assert git(root, "branch", "--list", "retrained") == ""


# notify


def test_the_command_gets_the_decision_as_json_on_its_standard_input(tmp_path):
    follow_up.notify("cat > decision.json", DECISION, tmp_path)
    values = json.loads((tmp_path / "decision.json").read_text(encoding="utf-8"))
    assert values["reasons"][0]["sentence"] == "0.91 » 0.90 – besser"
    assert DecisionRecord.from_json(values) == DECISION


def test_a_command_may_ignore_its_standard_input(tmp_path):
    follow_up.notify("true", replace(DECISION, why="x" * 1_000_000), tmp_path)


def test_the_error_of_a_failed_command_contains_its_output(tmp_path):
    sentence = error_message(
        follow_up.notify, "echo no route; echo to host >&2; exit 3", DECISION, tmp_path
    )
    assert "ended with 3" in sentence
    assert "to host" in sentence


def test_a_missing_command_is_an_error_message(tmp_path):
    assert "ended with 127" in error_message(
        follow_up.notify, "no-such-command", DECISION, tmp_path
    )


def test_output_that_is_not_utf_8_does_not_hide_the_error(tmp_path):
    command = "printf 'caf\\351' >&2; exit 3"  # Latin-1
    assert "ended with 3" in error_message(follow_up.notify, command, DECISION, tmp_path)


def test_a_command_that_takes_too_long_is_ended_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(follow_up, "NOTIFY_SECONDS", 1)
    command = "sleep 300 & echo $! > started; wait"
    assert "took longer than 1 s" in error_message(follow_up.notify, command, DECISION, tmp_path)
    child = int((tmp_path / "started").read_text())
    deadline = time.monotonic() + 10
    while processes.process_identity(child) and time.monotonic() < deadline:
        time.sleep(0.1)  # it got a signal; ending may take a moment
    survivor = processes.process_identity(child)
    if survivor:
        os.kill(child, signal.SIGKILL)
    assert survivor is None
