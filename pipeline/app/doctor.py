"""Check a machine and a checkout, with advice on each problem: `gliaflow doctor`."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.adapters.checkout.project import find_project, find_root
from pipeline.adapters.process import native_logs
from pipeline.app.open_registry import open_registry
from pipeline.errors import GliaflowError

PACKAGES = ("tensorflow", "keras", "dvc", "prefect", "mlflow", "great-expectations")
MIN_FREE_GIB = 5


@dataclass(frozen=True)
class Finding:
    """Result of one check. sentence: the state and, if it is not fine, what to do."""

    fine: bool
    sentence: str


def examine(folder: Path) -> list[Finding]:
    """Run every check in order; a check that fails does not stop the others."""
    checks: tuple[Callable[[Path], Finding], ...] = (
        _python, _packages, _commands, _params, _source, _git, _disk, _links, _registry, _gpu,
    )  # fmt: skip
    return [_run(check, folder) for check in checks]


def _run(check: Callable[[Path], Finding], folder: Path) -> Finding:
    try:
        return check(folder)
    except GliaflowError as error:
        return Finding(False, str(error))
    except Exception as error:  # a check that crashes is a finding too
        name = check.__name__.strip("_")
        return Finding(False, f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")


def _python(folder: Path) -> Finding:
    release = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding(True, f"Python {release}")
    return Finding(False, f"Python {release}; expected 3.11 to 3.13: run `make env`")


def _packages(folder: Path) -> Finding:
    installed, missing = [], []
    for name in PACKAGES:
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(False, f"not installed: {', '.join(missing)}; run `make env`")
    return Finding(True, ", ".join(installed))


def _commands(folder: Path) -> Finding:
    """Check that `python` in dvc.yaml is the interpreter that has the packages."""
    python = shutil.which("python")
    bin_folder = Path(sys.executable).parent
    if python and Path(python).parent == bin_folder:
        return Finding(True, f"`python` is {python}")
    return Finding(
        False,
        f"`python` is {python or 'missing'}; `dvc repro` needs the one in {bin_folder}: "
        "run `source .venv/bin/activate` (`gliaflow run` works without)",
    )


def _params(folder: Path) -> Finding:
    source = find_project(folder).params.fetch.source
    return Finding(True, f"params.yaml is valid: source {source}")


def _source(folder: Path) -> Finding:
    source = find_project(folder).params.fetch.source
    if source in ("phantom", "kaggle") or source.startswith("s3://"):
        return Finding(True, f"the source {source} is checked when it is fetched")
    if Path(source).expanduser().exists():
        return Finding(True, f"the source {source} exists")
    return Finding(False, f"the source {source} does not exist; set it with `gliaflow use`")


def _git(folder: Path) -> Finding:
    if (find_root(folder) / ".git").exists():
        return Finding(True, "the checkout is a git repository")
    return Finding(False, "no .git: DVC needs it; clone the repository, or run `git init`")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    if free >= MIN_FREE_GIB:
        return Finding(True, f"{free:.0f} GiB free")
    return Finding(False, f"{free:.0f} GiB free; free at least {MIN_FREE_GIB} GiB")


def _links(folder: Path) -> Finding:
    """Check that files can be linked to DVC's cache, so that scans are not stored twice."""
    root = find_root(folder)
    file, link = root / ".dvc" / ".link-test", root / ".dvc" / ".link-test-2"
    try:
        file.touch()
        os.link(file, link)
        return Finding(True, "this file system has hard links: scans are stored once")
    except OSError as error:
        return Finding(False, f"no hard links here ({error}): scans are copied, twice the space")
    finally:
        file.unlink(missing_ok=True)
        link.unlink(missing_ok=True)


def _registry(folder: Path) -> Finding:
    champion = open_registry(find_project(folder)).champion()
    if champion is None:
        return Finding(True, "MLflow answers; there is no champion yet")
    return Finding(True, f"MLflow answers; version {champion.version} is the champion")


def _gpu(folder: Path) -> Finding:
    native_logs.import_keras()
    import keras

    devices = keras.distribution.list_devices("gpu")
    backend = keras.backend.backend()
    if devices:
        return Finding(True, f"{len(devices)} GPU for {backend}: {devices[0]}")
    return Finding(True, f"no GPU for {backend}: training runs on the CPU")
