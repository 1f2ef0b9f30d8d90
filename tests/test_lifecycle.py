"""The life of versions on a tiny phantom: verified, restored elsewhere, rolled back, recalled."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import checkouts
import pytest

pytestmark = pytest.mark.slow
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost"]


def commit(root: Path) -> None:
    subprocess.run([*GIT, "add", "-A"], cwd=root, check=True)
    subprocess.run([*GIT, "commit", "-qm", "state"], cwd=root, check=True)


def call(root: Path, *command: str, code: int = 0, registry_of: Path | None = None) -> str:
    """Run a command in a checkout, and expect its exit code; return its standard output."""
    environment = checkouts.environment(root)
    if registry_of:
        environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{registry_of}/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=root, env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")


def registry(root: Path) -> dict:
    return json.loads(call(root, "gliaflow", "registry", "--json"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def states(root: Path, version: int, *, code: int = 0) -> dict[str, str]:
    done = json.loads(call(root, "gliaflow", "verify", str(version), "--json", code=code))
    return {part["name"]: part["state"] for part in done}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A checkout with two versions; a person put both into use."""
    root = checkouts.make(tmp_path_factory.mktemp("built"))
    commit(root)
    call(root, "gliaflow", "run")
    checkouts.change(root, train={"seed": 2})
    commit(root)
    call(root, "gliaflow", "run")
    call(root, "gliaflow", "promote", "2", "--override", "test", "--by", "Ada")
    return root


def test_every_part_of_a_version_is_found_and_the_same(built):
    expected = dict.fromkeys(("weights", "manifest", "split", "params", "code", "scans"), "same")
    assert states(built, 1) == states(built, 2) == expected


def test_a_changed_scan_and_a_changed_artifact_are_found(built, tmp_path):
    copied = tmp_path / "raw"
    raw = built / "data/raw"
    shutil.copytree(raw, copied)
    cache = built / ".dvc/cache"
    cache.rename(tmp_path / "cache")
    file = next(raw.glob("source/*/*_1.tif"))
    content = bytearray(file.read_bytes())
    file.unlink()
    content[-1] ^= 1
    file.write_bytes(content)
    try:
        assert states(built, 1, code=1)["scans"] == "different"
        file.unlink()
        assert states(built, 1, code=1)["scans"] == "missing"
    finally:
        (tmp_path / "cache").rename(cache)
        shutil.rmtree(raw)
        copied.rename(raw)


def test_a_version_is_restored_in_a_second_clone_and_nothing_is_left_to_run(built, tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(built), str(clone)], check=True)
    call(clone, "dvc", "config", "--local", "cache.dir", str(built / ".dvc/cache"))
    said = call(clone, "gliaflow", "restore", "1", registry_of=built)
    assert "version 1 is restored" in said
    assert "up to date" in call(clone, "dvc", "repro")
    assert read(clone / "data/splits.csv") == read(built / "data/splits.csv")
    assert "seed: 1" in (clone / "params.yaml").read_text().split("evaluate:")[0]
    refused = call(clone, "gliaflow", "restore", "1", registry_of=built, code=1)
    assert "the work tree has changes" in refused


def test_a_version_of_other_code_is_not_restored(built, tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(built), str(clone)], check=True)
    module = clone / "pipeline/domain/metrics.py"
    module.write_text(module.read_text() + "# changed\n")
    commit(clone)
    refused = call(clone, "gliaflow", "restore", "1", registry_of=built, code=1)
    assert "was built with other code; check it out first: `git checkout " in refused


def test_a_version_is_rebuilt_from_scratch_and_is_identical(built):
    done = json.loads(call(built, "gliaflow", "reproduce", "1", "--json"))
    assert done["verdict"] == "identical"
    assert done["difference"]["mean"] == 0
    assert set(done["parts"]) == {"code", "data", "split", "params", "weights"}


def test_a_rollback_and_a_recall_leave_a_champion_without_the_patient(built):
    call(built, "gliaflow", "rollback", "--by", "Ada", "--reason", "misses edges")
    assert registry(built)["champion"] == 1
    assert "Rejected" in call(built, "gliaflow", "run")
    splits = {row["patient"]: row["split"] for row in read(built / "data/splits.csv")}
    patient = next(name for name, split in splits.items() if split == "train")
    said = call(built, "gliaflow", "recall", patient, "--reason", "consent withdrawn")
    assert "version 1 (the champion): train" in said and "version 2: train" in said
    assert "was trained on" in call(built, "gliaflow", "recall", "--check", code=1)
    call(built, "gliaflow", "run")
    assert patient not in {row["patient"] for row in read(built / "data/splits.csv")}
    report = registry(built)
    newest = report["versions"][0]
    assert newest["version"] == 3 and newest["withdrawn"] is None
    assert all(version["withdrawn"] for version in report["versions"][1:])
    call(built, "gliaflow", "promote", "3", "--override", "without the patient", "--by", "Ada")
    assert "No champion holds a recalled patient" in call(built, "gliaflow", "recall", "--check")
