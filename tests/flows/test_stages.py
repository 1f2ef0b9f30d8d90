"""A stage of a real checkout that is killed as the system kills where memory runs out."""

import shutil
from pathlib import Path

import checkouts
import psutil
import pytest

from flows import stages
from pipeline.adapters import project
from pipeline.errors import GliaflowError

SENTENCE = "^train: killed from outside, as the system does where memory runs out; call the same"


def kill_after_an_epoch(line: str) -> None:
    """Kill the training below this process; DVC, between both, lives on."""
    if not line.startswith("train: epoch "):
        return
    for one in psutil.Process().children(recursive=True):
        command = one.cmdline()
        if "pipeline.stages" in command and "train" in command:
            one.kill()


def one_that_waits(folder: Path) -> str:
    """A shell that has something to do after its command, so that it cannot become it."""
    shell = folder / "sh"
    shell.write_text('#!/bin/sh\nsh -c "$2"\nexit $?\n')
    shell.chmod(0o755)
    return str(shell)


@pytest.mark.slow
def test_a_killed_stage_says_so_and_that_the_same_command_goes_on(tmp_path, monkeypatch):
    root = checkouts.make(tmp_path, train={"epochs": 40, "patience": 40})
    assert checkouts.call(root, "dvc", "repro", "split").returncode == 0
    # A shell that waits for what it runs gives another code than one that becomes it.
    for shell in (shutil.which("bash"), one_that_waits(tmp_path)):
        monkeypatch.setenv("SHELL", shell)
        with pytest.raises(GliaflowError, match=SENTENCE):
            stages.repro(root, "train", say=kill_after_an_epoch)
    own = project.find(root)
    names = ("scans", "manifest", "quarantine", "splits", "model", "history")
    paths = {name: own.path(name) for name in names}
    paths |= {"checkpoint": root / ".local/checkpoints", "params": root / "params.yaml"}
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        kill_after_an_epoch(line)

    with pytest.raises(GliaflowError, match=SENTENCE):
        stages.alone(root, "train", paths, say=say)
    assert any("goes on after epoch" in line for line in said)
