import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from making import REPOSITORY, content

from flows import afterwards
from pipeline.adapters import lifetime, project
from pipeline.adapters.project import Project
from pipeline.errors import GliaflowError

GRAPH = """
stages:
  fetch:
    cmd: sh copy.sh --incoming data/incoming --raw data/raw
    deps: [copy.sh, data/incoming]
    outs: [data/raw]
"""
DECISION: dict[str, Any] = {
    "verdict": "promote",
    "candidate": {"version": "3", "digest": "5fd1a2"},
    "champion": {"before": "2", "after": "3"},
    "reasons": [{"passed": True, "sentence": "0.91 » 0.90 – besser"}],
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small repository that DVC and git know, with one batch that neither knows yet."""
    root = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        alone(patch, root.parent / "home")
        for folder in (".dvc", "data/incoming/march/P", ".local"):
            (root / folder).mkdir(parents=True)
        (root / ".dvc" / "config").write_text("[core]\n    check_update = false\n")
        for name in (".gitignore", ".dvc/.gitignore"):  # what git ignores, DVC does not look into
            shutil.copy(REPOSITORY / name, root / name)
        (root / "dvc.yaml").write_text(GRAPH)
        (root / "params.yaml").write_text("{}\n")
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
    alone(monkeypatch, tmp_path / "home")
    shutil.copytree(template, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


@pytest.fixture
def own(root) -> Project:
    return project.find(root)


def alone(patch: pytest.MonkeyPatch, home: Path) -> None:
    """No settings of git or DVC but the repository's own, and the tests' own author."""
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
    settings = f'[core]\n    remote = store\n[remote "store"]\n    url = {url}\n'
    (root / ".dvc" / "config.local").write_text(settings)


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(GliaflowError) as refused:
        call(*arguments)
    assert str(refused.value).strip()
    assert "\n" not in str(refused.value)
    return str(refused.value)


# push


def test_without_a_remote_nothing_is_pushed_and_it_says_how_to_have_one(root):
    said = afterwards.push(root)
    assert "no DVC remote is configured" in said
    assert "dvc remote add" in said


def test_after_a_push_everything_is_at_the_remote(root, own, tmp_path):
    add_remote(root, tmp_path / "store")
    afterwards.track_batches(root, own.path("incoming"))
    assert afterwards.push(root) == "everything is at the DVC remote store"
    for kept in ("cache", "tmp"):
        shutil.rmtree(root / ".dvc" / kept)
    for lost in ("raw", "incoming/march"):
        shutil.rmtree(root / "data" / lost)
    dvc(root, "pull", "--quiet")
    assert content(root / "data" / "incoming" / "march") == {"P/P_1.tif": b"a slice"}
    assert content(root / "data" / "raw") == {"march/P/P_1.tif": b"a slice"}


def test_a_remote_that_cannot_be_written_is_a_sentence(root, tmp_path):
    (tmp_path / "file").write_text("no folder")
    add_remote(root, tmp_path / "file" / "store")
    assert "dvc push" in refusal(afterwards.push, root)


def test_what_only_the_remote_has_is_not_told_as_missing_there(root, tmp_path):
    add_remote(root, tmp_path / "store")
    afterwards.push(root)
    for kept in (".dvc/cache", "data/raw"):
        shutil.rmtree(root / kept)
    assert afterwards.push(root) == "everything is at the DVC remote store"


# track_batches


def test_a_new_batch_gets_a_dvc_file_and_a_tracked_one_keeps_its_own(root, own):
    incoming = own.path("incoming")
    afterwards.track_batches(root, incoming)
    first = (incoming / "march.dvc").read_bytes()
    (incoming / "april" / "P").mkdir(parents=True)
    (incoming / "april" / "P" / "P_2.tif").write_bytes(b"another slice")
    afterwards.track_batches(root, incoming)
    assert sorted(path.name for path in incoming.glob("*.dvc")) == ["april.dvc", "march.dvc"]
    assert (incoming / "march.dvc").read_bytes() == first
    assert (incoming / "march" / "P" / "P_1.tif").read_bytes() == b"a slice"


def test_without_batches_there_is_nothing_to_track(root, own):
    shutil.rmtree(own.path("incoming") / "march")
    afterwards.track_batches(root, own.path("incoming"))
    assert not list(own.path("incoming").glob("*.dvc"))


# commit


def track(root: Path, batch: str, digest: str) -> str:
    """What `dvc add` leaves beside a batch; returns its text."""
    text = f"outs:\n- md5: {digest}.dir\n  path: {batch}\n"
    (root / "data" / "incoming" / f"{batch}.dvc").write_text(text)
    return text


def at(root: Path, revision: str) -> dict[str, str]:
    """Every file of a commit, path to content."""
    names = git(root, "ls-tree", "-r", "--name-only", revision).split()
    return {name: git(root, "show", f"{revision}:{name}") for name in names}


def picture(root: Path) -> dict[str, Any]:
    """All that a person would see of their checkout: branch, commit, index, status, files."""
    return {
        "branch": git(root, "rev-parse", "--abbrev-ref", "HEAD"),
        "commit": git(root, "rev-parse", "HEAD"),
        "index": git(root, "ls-files", "--stage"),
        "status": git(root, "status", "--porcelain", "--ignored"),
        "files": {k: v for k, v in content(root).items() if not k.startswith(".git/")},
    }


def test_lock_and_batches_are_committed_on_the_branch_beside_all_that_was_there(root, own):
    march = track(root, "march", "1" * 32)
    said = afterwards.commit(own, DECISION)
    assert "dvc.lock" in said and "data/incoming/march.dvc" in said and "retrained" in said
    new = {"dvc.lock": (root / "dvc.lock").read_text(), "data/incoming/march.dvc": march}
    assert at(root, "retrained") == at(root, "main") | new
    assert git(root, "rev-parse", "retrained^") == git(root, "rev-parse", "main")


def test_the_commit_says_what_was_decided_and_on_which_model(root, own):
    afterwards.commit(own, DECISION)
    message = git(root, "log", "-1", "--format=%B", "retrained")
    assert message.strip() == "Promoted: version 3 is the champion.\n\ndigest 5fd1a2"


def test_a_commit_leaves_work_tree_index_and_branch_as_they_were(root, own):
    track(root, "march", "1" * 32)
    (root / "staged").write_text("staged, and then")
    git(root, "add", "staged")
    (root / "staged").write_text("changed again")
    (root / "params.yaml").write_text("changed: true\n")
    (root / "untracked").write_text("untracked")
    git(root, "rm", "--quiet", "--cached", "copy.sh")
    before = picture(root)
    afterwards.commit(own, DECISION)
    assert picture(root) == before
    assert set(at(root, "retrained")) - set(at(root, "main")) == {
        "dvc.lock",
        "data/incoming/march.dvc",
    }
    assert at(root, "retrained")["params.yaml"] == "{}\n"


def test_a_commit_while_the_branch_itself_is_checked_out_leaves_it_all_as_it_was(root, own):
    git(root, "checkout", "--quiet", "-b", "retrained")
    before = picture(root)
    with suppress(GliaflowError):  # to refuse is as good
        afterwards.commit(own, DECISION)
    assert picture(root) == before


def test_the_same_state_is_not_committed_twice(root, own):
    afterwards.commit(own, DECISION)
    first = git(root, "rev-parse", "retrained")
    said = afterwards.commit(own, DECISION)
    assert said == "the branch retrained holds this state already"
    assert git(root, "rev-parse", "retrained") == first


def test_the_next_state_follows_the_one_before(root, own):
    track(root, "march", "1" * 32)
    afterwards.commit(own, DECISION)
    first = git(root, "rev-parse", "retrained")
    april = track(root, "april", "2" * 32)
    afterwards.commit(own, DECISION)
    assert git(root, "rev-parse", "retrained^") == first
    assert at(root, "retrained") == at(root, first.strip()) | {"data/incoming/april.dvc": april}


def test_a_state_that_is_committed_on_the_own_branch_is_not_told_as_on_another(root, own):
    git(root, "add", "dvc.lock")
    git(root, "commit", "--quiet", "--message", "by hand")
    said = afterwards.commit(own, DECISION)
    exists = bool(git(root, "branch", "--list", "retrained"))
    assert exists or "the branch retrained holds" not in said


def test_a_commit_needs_nothing_that_an_earlier_run_left(root, own):
    (root / ".local").rmdir()
    afterwards.commit(own, DECISION)
    assert "dvc.lock" in at(root, "retrained")


def test_a_commit_needs_no_author_in_the_settings(root, own, monkeypatch):
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{who}_NAME")
        monkeypatch.delenv(f"GIT_{who}_EMAIL")
    afterwards.commit(own, DECISION)
    assert git(root, "log", "-1", "--format=%an", "retrained").strip() == "gliaflow"


def test_without_git_the_refusal_is_a_sentence(root, own):
    shutil.rmtree(root / ".git")
    assert "not a git repository" in refusal(afterwards.commit, own, DECISION)


def test_without_a_lock_the_refusal_names_it_and_no_branch_is_made(root, own):
    (root / "dvc.lock").unlink()
    assert "dvc.lock" in refusal(afterwards.commit, own, DECISION)
    assert git(root, "branch", "--list", "retrained") == ""


# notify


def test_a_command_gets_the_decision_as_json_on_its_standard_input(tmp_path):
    afterwards.notify("cat > told.json", DECISION, tmp_path)
    assert json.loads((tmp_path / "told.json").read_text(encoding="utf-8")) == DECISION


def test_a_command_that_reads_nothing_is_fine(tmp_path):
    afterwards.notify("true", DECISION | {"long": "x" * 1_000_000}, tmp_path)


def test_a_failing_command_is_a_sentence_with_what_it_said(tmp_path):
    sentence = refusal(
        afterwards.notify, "echo no route; echo to host >&2; exit 3", DECISION, tmp_path
    )
    assert "ended with 3" in sentence
    assert "to host" in sentence


def test_a_command_that_is_not_there_is_a_sentence(tmp_path):
    assert "ended with 127" in refusal(afterwards.notify, "no-such-command", DECISION, tmp_path)


def test_a_failing_command_whose_words_are_no_text_is_a_sentence(tmp_path):
    said = "printf 'caf\\351' >&2; exit 3"  # Latin-1
    assert "ended with 3" in refusal(afterwards.notify, said, DECISION, tmp_path)


def test_a_command_that_takes_too_long_is_a_sentence_and_all_it_started_is_ended(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(afterwards, "NOTIFY_SECONDS", 1)
    command = "sleep 300 & echo $! > started; wait"
    assert "took over a minute" in refusal(afterwards.notify, command, DECISION, tmp_path)
    started = int((tmp_path / "started").read_text())
    until = time.monotonic() + 10
    while lifetime.identity(started) and time.monotonic() < until:
        time.sleep(0.1)  # it was told to end; the system may take a moment
    found = lifetime.identity(started)
    if found:
        os.kill(started, signal.SIGKILL)
    assert found is None
