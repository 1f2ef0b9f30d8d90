"""A stage of a real checkout that is killed as the system kills where memory runs out."""

import checkouts
import psutil
import pytest

from flows import stages
from pipeline.adapters import project
from pipeline.errors import GliaflowError

SENTENCE = "^train: killed from outside, as the system does where memory runs out; call the same"


def kill_after_an_epoch(line: str) -> None:
    """Kill the training below this process; DVC, between both, lives on."""
    if not line.startswith("train: epoch 1:"):
        return
    for one in psutil.Process().children(recursive=True):
        command = one.cmdline()
        if "pipeline.stages" in command and "train" in command:
            one.kill()


@pytest.mark.slow
def test_a_killed_stage_says_so_and_that_the_same_command_goes_on(tmp_path):
    root = checkouts.make(tmp_path, train={"epochs": 40, "patience": 40})
    assert checkouts.call(root, "dvc", "repro", "split").returncode == 0
    with pytest.raises(GliaflowError, match=SENTENCE):
        stages.repro(root, "train", say=kill_after_an_epoch)
    own = project.find(root)
    names = ("scans", "manifest", "quarantine", "splits", "model", "history")
    paths = {name: own.path(name) for name in names}
    paths |= {"checkpoint": root / ".local/checkpoints", "params": root / "params.yaml"}
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        kill_after_an_epoch(line.replace("epoch 5:", "epoch 1:"))

    with pytest.raises(GliaflowError, match=SENTENCE):
        stages.alone(root, "train", paths, say=say)
    assert any("goes on after epoch" in line for line in said)
