"""`gliaflow doctor`: looks at this machine and this checkout, and says what to do about them."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.adapters import project, quiet
from pipeline.errors import GliaflowError

PACKAGES = ("tensorflow", "keras", "dvc", "prefect", "mlflow", "great-expectations")
FREE_GIB = 5


@dataclass(frozen=True)
class Finding:
    fine: bool
    sentence: str


def examine(folder: Path) -> list[Finding]:
    """Every check, in order; none stops the others."""
    checks: tuple[Callable[[Path], Finding], ...] = (
        _python, _packages, _commands, _params, _source, _git, _disk, _links, _registry, _gpu,
    )  # fmt: skip
    return [_checked(check, folder) for check in checks]


def _checked(check: Callable[[Path], Finding], folder: Path) -> Finding:
    try:
        return check(folder)
    except GliaflowError as error:
        return Finding(False, str(error))
    except Exception as error:  # a check that breaks is a finding as well
        name = check.__name__.strip("_")
        return Finding(False, f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")


def _python(folder: Path) -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    fine = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding(
        fine, f"Python {found}" + ("" if fine else "; expected 3.11 to 3.13: `make env`")
    )


def _packages(folder: Path) -> Finding:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(False, f"not installed: {', '.join(missing)}; run `make env`")
    return Finding(True, ", ".join(found))


def _commands(folder: Path) -> Finding:
    """dvc.yaml says `python`: it must be the one that holds the packages."""
    python = shutil.which("python")
    own = Path(sys.executable).parent
    if python and Path(python).parent == own:
        return Finding(True, f"`python` is {python}")
    return Finding(
        False,
        f"`python` is {python or 'not there'}; `dvc repro` needs the one in {own}: "
        "run `source .venv/bin/activate` (`gliaflow run` works without)",
    )


def _params(folder: Path) -> Finding:
    own = project.find(folder)
    own.params()
    return Finding(True, f"params.yaml is right: source {own.params().fetch.source}")


def _source(folder: Path) -> Finding:
    source = project.find(folder).params().fetch.source
    if source in ("phantom", "kaggle") or source.startswith("s3://"):
        return Finding(True, f"the source {source} is looked at when it is fetched")
    fine = Path(source).expanduser().exists()
    return Finding(
        fine, f"the source {source} is {'there' if fine else 'not there; `gliaflow use lgg`'}"
    )


def _git(folder: Path) -> Finding:
    root = project.find(folder).root
    if (root / ".git").exists():
        return Finding(True, "the checkout is under git")
    return Finding(False, "no .git: DVC needs it; clone the repository, or `git init`")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    fine = free >= FREE_GIB
    return Finding(fine, f"{free:.0f} GiB free" + ("" if fine else f"; have at least {FREE_GIB}"))


def _links(folder: Path) -> Finding:
    """Whether the cache can be linked to, so that scans do not lie on disk once more."""
    root = project.find(folder).root
    one, two = root / ".dvc" / ".link-one", root / ".dvc" / ".link-two"
    try:
        one.touch()
        os.link(one, two)
        return Finding(True, "this file system links files: scans are not kept twice")
    except OSError as error:
        return Finding(False, f"no hard links here ({error}): scans are copied, twice the space")
    finally:
        one.unlink(missing_ok=True)
        two.unlink(missing_ok=True)


def _registry(folder: Path) -> Finding:
    from flows import publish

    champion = publish.open_registry(project.find(folder)).champion()
    if champion is None:
        return Finding(True, "MLflow answers; no version is in use yet")
    return Finding(True, f"MLflow answers; version {champion.version} is in use")


def _gpu(folder: Path) -> Finding:
    quiet.keras_loaded()
    import keras

    devices = keras.distribution.list_devices("gpu")
    if devices:
        return Finding(True, f"{len(devices)} GPU for {keras.backend.backend()}: {devices[0]}")
    return Finding(True, f"no GPU for {keras.backend.backend()}: training runs on the CPU")
