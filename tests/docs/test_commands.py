"""Every command in a `sh` block of README.md and docs/ works, or says why no test runs it.

A block is exempt if a comment above it says what it needs: `<!-- not run: needs hours -->`. All
other commands are in COMMANDS, which run in this order in a clone of a tiny checkout, or in
RUN_ELSEWHERE.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import checkouts
import pytest
from teams import free_port, scan_files

ROOT = checkouts.ROOT
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REASONS = {
    "hours",
    "a GPU",
    "a login",
    "a container engine",
    "a container engine and a GPU",
    "several versions",
    "two trainings of every fold",
}
BLOCK = re.compile(
    r"(?:^<!-- not run: needs (?P<needs>[^>]+) -->\n)?^```sh\n(?P<text>.*?)^```", re.M | re.S
)

COMMANDS = [
    "git clone URL gliaflow && cd gliaflow",
    "make env",
    "source .venv/bin/activate",
    "gliaflow doctor",
    "make demo",
    "python3 -m webbrowser reports/index.html",
    "gliaflow predict data/raw/source --out predicted",
    "gliaflow registry",
    "dvc metrics show",
    "dvc repro",
    "gliaflow promote 1",
    "gliaflow predict ~/new-scans --out masks",
    "gliaflow cross-validate --folds 3 --first 1",
    "make up",
    "mkdir -p inbox/june",
    "cp -r ~/new-scans/. inbox/june/",
    "touch inbox/june/COMPLETE",
    "gliaflow inbox",
    "source .local/stack/environment && prefect deployment run retrain/lgg",
    "make down",
    "gliaflow use lgg --source ~/Downloads/archive.zip",
    "gliaflow use lgg --source ~/scans",
    "gliaflow use lgg --source s3://bucket/prefix",
    "gliaflow use lgg --source s3://bucket/prefix --endpoint-url http://127.0.0.1:8333",
    "gliaflow use lgg --source kaggle",
    "gliaflow use phantom",
    "make clean",
]

# Commands that another test runs, with options that make them short.
RUN_ELSEWHERE = {"gliaflow leakage --folds 3 --first 1": "tests/app/test_cross_validation.py"}


def blocks() -> Iterator[tuple[Path, str | None, list[str]]]:
    """Yield page, what it needs, and commands of each `sh` block."""
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            lines = match["text"].replace("\\\n", " ").splitlines()
            commands = [re.sub(r"\s+#\s.*$", "", line).strip() for line in lines]
            yield page, match["needs"], [command for command in commands if command]


def test_every_documented_command_is_run_or_says_what_it_needs():
    documented = set()
    for page, needs, commands in blocks():
        assert needs is None or needs in REASONS, f"{page.name}: {needs}"
        if needs is None:
            unknown = set(commands) - {*COMMANDS, *RUN_ELSEWHERE}
            assert not unknown, f"{page.name}: add these to COMMANDS, or say what they need"
            documented |= set(commands)
    assert documented == {*COMMANDS, *RUN_ELSEWHERE}


@pytest.mark.parametrize(("command", "test"), RUN_ELSEWHERE.items())
def test_a_command_that_another_test_runs_is_in_that_test(command, test):
    words = ", ".join(f'"{word}"' for word in command.removeprefix("gliaflow ").split())
    assert words in (ROOT / test).read_text(encoding="utf-8")


@dataclass
class Shell:
    """Runs commands of the documentation one after another, as in one shell session."""

    folder: Path
    environment: dict[str, str]
    substitutes: dict[str, str]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        for text, substitute in self.substitutes.items():
            command = command.replace(text, substitute)
        at_end = self.folder.parent / "folder"
        done = subprocess.run(
            ["bash", "-ec", f"{command}\npwd > {at_end}"], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        if done.returncode == 0:
            self.folder = Path(at_end.read_text().strip())
        return done


@pytest.fixture(scope="module")
def shell(tmp_path_factory) -> Iterator[Shell]:
    """A shell beside a repository to clone, with a home that holds what the pages mention."""
    folder = tmp_path_factory.mktemp("documented")
    origin, home, work = folder / "origin", folder / "home", folder / "work"
    for path in (origin, home, work):
        path.mkdir()
    make_origin(origin)
    make_home(home)
    prefect, mlflow = str(free_port()), str(free_port())
    make_flags = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    clone = work / "gliaflow"
    environment = {
        **{k: v for k, v in checkouts.environment(clone).items() if k not in make_flags},
        "HOME": str(home),
        "BROWSER": "true",
        "PREFECT_PORT": prefect,
        "MLFLOW_PORT": mlflow,
    }
    shell = Shell(work, environment, {"clone URL": f"clone {origin}", ":4200": f":{prefect}"})
    yield shell
    if clone.exists():
        shell.folder = clone
        shell.run("gliaflow down")
        end_leftovers(clone)


def make_origin(folder: Path) -> None:
    checkouts.make(folder, train={"epochs": 12})  # fold 1 finds no tumour in 5
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run([*git, "add", "-A"], cwd=folder, check=True)
    subprocess.run([*git, "commit", "-qm", "first"], cwd=folder, check=True)


def make_home(home: Path) -> None:
    """Make ~/new-scans, ~/scans and ~/Downloads/archive.zip, with a patient each."""
    for name in ("new-scans", "scans"):
        patient = home / name / "NEW_AX_0001"
        patient.mkdir(parents=True)
        for file, content in scan_files(patient.name).items():
            (patient / file).write_bytes(content)
    shutil.make_archive(str(home / "Downloads/archive"), "zip", home / "scans")


def provide_environment(clone: Path) -> None:
    """Give the clone this environment as its .venv, up to date for make."""
    (clone / ".venv").mkdir()
    (clone / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (clone / ".venv/in-date").touch()


def leftovers(clone: Path) -> list[int]:
    """Return the processes that work in the clone."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            folder = (process / "cwd").readlink()
        except OSError:
            continue
        if folder == clone or clone in folder.parents:
            found.append(int(process.name))
    return found


def end_leftovers(clone: Path) -> None:
    for pid in leftovers(clone):
        os.kill(pid, 9)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_works(command, shell):
    started = time.monotonic()
    done = shell.run(command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    if command.startswith("git clone"):
        provide_environment(shell.folder)
    print(f"{time.monotonic() - started:.1f} s: {command}")
