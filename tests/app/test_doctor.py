"""Every check of `gliaflow doctor`, on a good checkout and on a bad one."""

import errno
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace

import pytest
from fakes import FakeRegistry

from pipeline.adapters.tracking.registry import Version
from pipeline.app import doctor
from pipeline.app.doctor import Finding
from pipeline.errors import GliaflowError

CHECKS = (
    "python", "packages", "commands", "params", "source", "git", "disk", "links", "registry", "gpu",
)  # fmt: skip


@pytest.fixture
def folder(project, monkeypatch):
    """A checkout in which every check passes, with an empty registry."""
    (project.root / ".git").mkdir()
    (project.root / ".dvc").mkdir()
    bin_folder = os.path.dirname(doctor.sys.executable)  # noqa: PTH120
    monkeypatch.setenv("PATH", bin_folder)
    monkeypatch.setattr(doctor, "open_registry", lambda project: FakeRegistry())
    return project.root


def examine(folder) -> dict[str, Finding]:
    findings = dict(zip(CHECKS, doctor.examine(folder), strict=True))
    for finding in findings.values():
        assert "\n" not in finding.sentence
        assert "Traceback" not in finding.sentence
    return findings


def wrong(folder) -> dict[str, str]:
    """Return the sentences of the checks that are not fine."""
    return {name: found.sentence for name, found in examine(folder).items() if not found.fine}


def test_a_good_checkout_has_only_fine_findings(folder):
    findings = examine(folder)
    assert wrong(folder) == {}
    assert findings["python"].sentence.startswith("Python 3.1")
    assert "keras 3" in findings["packages"].sentence
    assert findings["params"].sentence == "params.yaml is valid: source phantom"
    assert "phantom is checked when it is fetched" in findings["source"].sentence
    assert findings["git"].sentence == "the checkout is a git repository"
    assert "GiB free" in findings["disk"].sentence
    assert "hard links" in findings["links"].sentence
    assert findings["registry"].sentence == "MLflow answers; there is no champion yet"


def test_another_python_is_wrong(folder, monkeypatch):
    old = SimpleNamespace(version_info=(3, 10, 4), executable=doctor.sys.executable)
    monkeypatch.setattr(doctor, "sys", old)
    assert wrong(folder) == {"python": "Python 3.10.4; expected 3.11 to 3.13: run `make env`"}


def test_missing_packages_are_named(folder, monkeypatch):
    def version_without_mlflow(name: str) -> str:
        if name == "mlflow":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", version_without_mlflow)
    assert wrong(folder) == {"packages": "not installed: mlflow; run `make env`"}


def test_a_path_without_the_environment_is_wrong(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert wrong(folder)["commands"].startswith("`python` is missing; `dvc repro` needs the one in")


def test_a_path_with_another_python_is_wrong(folder, monkeypatch, tmp_path):
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert wrong(folder)["commands"].startswith(f"`python` is {other}; `dvc repro` needs")


def test_invalid_params_are_wrong_with_the_key(folder, change_params):
    (folder / "params.yaml").write_text("fetch: 1\n")
    findings = wrong(folder)
    assert {"params", "source", "registry"} <= set(findings)
    assert findings["params"].startswith("params.yaml: ")


@pytest.mark.parametrize("source", ["kaggle", "s3://bucket/prefix"])
def test_a_source_elsewhere_is_checked_later(folder, change_params, source):
    change_params(fetch={"source": source})
    assert examine(folder)["source"] == Finding(
        True, f"the source {source} is checked when it is fetched"
    )


def test_a_source_on_this_machine_must_exist(folder, change_params, tmp_path):
    change_params(fetch={"source": str(tmp_path)})
    assert examine(folder)["source"] == Finding(True, f"the source {tmp_path} exists")
    change_params(fetch={"source": str(tmp_path / "missing")})
    assert list(wrong(folder)) == ["source"]
    assert "does not exist; set it with `gliaflow use" in wrong(folder)["source"]


def test_a_checkout_without_git_is_wrong(folder):
    (folder / ".git").rmdir()
    assert list(wrong(folder)) == ["git"]
    assert wrong(folder)["git"].startswith("no .git: DVC needs it")


def test_a_full_disk_is_wrong(folder, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=2 * 2**30)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert wrong(folder) == {"disk": "2 GiB free; free at least 5 GiB"}


def test_a_file_system_without_hard_links_is_wrong(folder, monkeypatch):
    def refuse(source, target) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(doctor.os, "link", refuse)
    assert list(wrong(folder)) == ["links"]
    assert "scans are copied, twice the space" in wrong(folder)["links"]
    assert list((folder / ".dvc").iterdir()) == []


def test_the_check_for_links_leaves_no_files(folder):
    examine(folder)
    assert list((folder / ".dvc").iterdir()) == []


def test_the_champion_is_named(folder, monkeypatch):
    registry = FakeRegistry()
    monkeypatch.setattr(registry, "champion", lambda: Version(3, ("champion",), {}, "run"))
    monkeypatch.setattr(doctor, "open_registry", lambda project: registry)
    assert examine(folder)["registry"] == Finding(True, "MLflow answers; version 3 is the champion")


def test_a_registry_that_refuses_is_wrong_with_its_message(folder, monkeypatch):
    def refuse(project) -> FakeRegistry:
        raise GliaflowError("MLflow at http://localhost:5000 refused: no connection")

    monkeypatch.setattr(doctor, "open_registry", refuse)
    assert wrong(folder) == {"registry": "MLflow at http://localhost:5000 refused: no connection"}


def test_gpus_are_counted(folder, monkeypatch):
    import keras

    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: ["gpu:0", "gpu:1"])
    assert examine(folder)["gpu"].sentence.startswith("2 GPU for ")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: [])
    assert examine(folder)["gpu"].sentence.endswith("training runs on the CPU")


def test_a_check_that_crashes_is_a_finding_and_the_others_still_run(folder, monkeypatch):
    import keras

    def crash(kind: str) -> list[str]:
        raise RuntimeError("driver\nmismatch")

    monkeypatch.setattr(keras.distribution, "list_devices", crash)
    assert wrong(folder) == {"gpu": "gpu: RuntimeError: driver mismatch"}


def test_outside_a_checkout_only_checks_of_the_machine_are_fine(tmp_path, monkeypatch):
    findings = examine(tmp_path)
    for name in ("params", "source", "git", "links", "registry"):
        assert not findings[name].fine
        assert "is not inside a gliaflow checkout" in findings[name].sentence
    assert findings["packages"].fine
