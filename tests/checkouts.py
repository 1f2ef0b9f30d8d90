"""Make small checkouts to run the pipeline in: this repository with a tiny phantom."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
TINY = {
    "fetch": {"phantom": {"patients": 24, "slices": 6, "size_px": 64}},
    "validate": {"height_px": 64, "width_px": 64},
    "split": {"validation": 0.2},
    "train": {
        "image_size": 32,
        "filters": [8, 8, 16, 16, 16],
        "batch": 8,
        "epochs": 5,
        "learning_rate": 0.01,
    },
    "evaluate": {"resamples": 200},
    "gate": {"min_tversky": 0.0, "min_patients": 1},
}


def make(folder: Path, **changes: dict) -> Path:
    """Make a git checkout in a folder, set to the tiny phantom.

    Args:
        folder: new or empty.
        changes: sections of params.yaml, applied on top.
    """
    names = [
        "dvc.yaml",
        "params.yaml",
        ".gitignore",
        "pipeline",
        "flows",
        "gliaflow",
        ".dvc/config",
    ]
    for name in [
        *names,
        ".dvc/plots.html",
        ".dvc/.gitignore",
        "data/incoming/.gitkeep",
        "data/recalled.csv",
    ]:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    values = yaml.safe_load((folder / "params.yaml").read_text())
    for sections in (TINY, changes):
        merge(values, sections)
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def change(folder: Path, **changes: dict) -> None:
    """Change values in params.yaml of a checkout, by section."""
    path = folder / "params.yaml"
    values = yaml.safe_load(path.read_text())
    merge(values, changes)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def merge(values: dict, changes: dict) -> None:
    """Apply nested changes to nested values, in place."""
    for key, value in changes.items():
        if isinstance(value, dict):
            merge(values[key], value)
        else:
            values[key] = value


def environment(folder: Path) -> dict[str, str]:
    """Return an environment that imports the checkout's code and has its own Prefect home."""
    bin_folder = str(Path(sys.executable).parent)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    return {
        **inherited,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "PREFECT_HOME": str(folder / ".prefect"),
        "COLUMNS": "200",
    }


def call(folder: Path, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run `gliaflow ...`, `dvc ...` or another module with this Python in a checkout."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
