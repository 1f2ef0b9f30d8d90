"""Cross-validation with real stages on a tiny phantom, killed during its second fold."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkouts
import pytest

from pipeline import params
from pipeline.adapters.process import processes
from pipeline.app import cross_validation
from pipeline.errors import GliaflowError

COMMITTED = params.load(Path(__file__).parents[2] / "params.yaml")
# Long enough to be killed in the middle: a stage notices within two seconds that its parent is gone.
TRAINING = ["--set", "train.epochs=60", "--set", "train.patience=60"]
COMMAND = ["cross-validate", "--folds", "3", "--first", "2", *TRAINING]


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def kill_in_fold_2(root: Path) -> None:
    """Run the cross-validation, and kill the command after three epochs of fold 2."""
    with subprocess.Popen(
        [sys.executable, "-m", "gliaflow", *COMMAND], cwd=root,
        env=checkouts.environment(root), stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        for line in process.stdout or []:
            if line.startswith("fold 2: train: epoch 3"):
                break
        os.kill(process.pid, signal.SIGKILL)


def await_stage_end(root: Path) -> None:
    """Wait until the training that holds the lock has noticed that its parent is gone."""
    holder = int((root / ".local/training.lock").read_text())
    deadline = time.monotonic() + 60
    while processes.process_identity(holder) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert processes.process_identity(holder) is None


@pytest.fixture(scope="module")
def crossed(tmp_path_factory) -> tuple[Path, str]:
    """A checkout, and the output of the command that completed a killed cross-validation."""
    root = checkouts.make(tmp_path_factory.mktemp("crossed"))
    kill_in_fold_2(root)
    assert list((root / ".local/cross-validation").glob("*/fold-2/checkpoints/*/state.json"))
    await_stage_end(root)
    done = checkouts.call(root, "gliaflow", *COMMAND)
    assert done.returncode == 0, done.stdout + done.stderr
    return root, done.stdout


@pytest.mark.slow
def test_a_killed_cross_validation_resumes_within_its_fold(crossed):
    _, output = crossed
    assert "fold 1 of 3: already done" in output
    assert "fold 1: train" not in output
    assert "fold 2: train: resumes after epoch" in output
    assert "fold 2 of 3: already done" not in output


@pytest.mark.slow
def test_every_patient_is_scored_by_a_fold_that_never_saw_it(crossed):
    root, _ = crossed
    rows = read(root / "reports/cross-validation/patients.csv")
    assert len({row["patient"] for row in rows}) == len(rows) > 0
    (trained,) = (root / ".local/cross-validation").iterdir()
    for fold in ("1", "2"):
        splits = {r["patient"]: r["split"] for r in read(trained / f"fold-{fold}" / "splits.csv")}
        tested = {row["patient"] for row in rows if row["fold"] == fold}
        assert tested == {patient for patient, split in splits.items() if split == "test"}
        assert set(splits.values()) == {"train", "validation", "test"}


@pytest.mark.slow
def test_scores_cover_all_patients_worst_first(crossed):
    root, output = crossed
    rows = read(root / "reports/cross-validation/patients.csv")
    dices = [float(row["dice"]) for row in rows]
    assert dices == sorted(dices)
    metrics = json.loads((root / "reports/cross-validation/metrics.json").read_text())
    assert metrics["test"]["dice"]["patients"] == len(rows)
    assert metrics["test"]["dice"]["mean"] == pytest.approx(sum(dices) / len(dices), abs=1e-5)
    assert f"Dice: mean {metrics['test']['dice']['mean']:.4f}" in output


@pytest.mark.slow
def test_the_page_lists_and_shows_every_patient_with_its_fold(crossed):
    root, _ = crossed
    page = (root / "reports/cross-validation/index.html").read_text()
    rows = read(root / "reports/cross-validation/patients.csv")
    for row in rows:
        assert f"Fold {row['fold']}: {row['patient']}</h3>" in page
        assert f'data-split="fold {row["fold"]}"' in page
    assert re.search(r"2 of 3 folds, \w+ by patient", page)
    assert 'id="decision"' not in page


@pytest.mark.slow
def test_training_curves_of_folds_go_to_a_separate_experiment(crossed):
    root, _ = crossed
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    assert client.get_experiment_by_name("gliaflow") is None
    assert client.get_experiment_by_name("gliaflow cross-validation") is not None


@pytest.mark.slow
def test_other_training_parameters_start_another_cross_validation(crossed):
    root, _ = crossed
    done = checkouts.call(root, "gliaflow", *COMMAND, "--set", "train.epochs=1", "--first", "1")
    assert "fold 1: train: epoch 1" in done.stdout
    assert len(list((root / ".local/cross-validation").iterdir())) == 2


@pytest.mark.slow
def test_more_folds_than_patients_are_an_error_message(crossed):
    root, _ = crossed
    done = checkouts.call(root, "gliaflow", "cross-validate", "--folds", "50")
    assert done.returncode == 1
    assert "has no patient in" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_other_post_processing_retrains_nothing(crossed):
    root, _ = crossed
    assert checkouts.call(root, "gliaflow", *COMMAND).returncode == 0  # writes its table again
    before = read(root / "reports/cross-validation/patients.csv")
    done = checkouts.call(root, "gliaflow", *COMMAND, "--set", "evaluate.threshold=0.9")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fold 1: evaluate" in done.stdout
    assert "train: " not in done.stdout
    after = read(root / "reports/cross-validation/patients.csv")
    fewer = {row["patient"]: int(row["predicted_pixels"]) for row in after}
    more = {row["patient"]: int(row["predicted_pixels"]) for row in before}
    assert all(fewer[patient] <= more[patient] for patient in more)
    assert sum(fewer.values()) < sum(more.values())
    again = checkouts.call(root, "gliaflow", *COMMAND)
    assert "fold 1 of 3: already done" in again.stdout  # the first scores are still stored
    assert read(root / "reports/cross-validation/patients.csv") == before


@pytest.mark.slow
def test_leakage_compares_the_same_training_with_both_splits(crossed):
    root, _ = crossed
    done = checkouts.call(root, "gliaflow", "leakage", "--folds", "3", "--first", "1", *TRAINING)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((root / "reports/leakage.json").read_text())
    for score in ("dice", "tversky", "seed_tversky"):
        gain = result["slice"][score]["mean"] - result["patient"][score]["mean"]
        assert result["flattered"][score] == pytest.approx(gain, abs=1e-6)
        assert f"{result['slice'][score]['mean']:.4f}" in done.stdout
    by_slice = next(
        path
        for path in (root / ".local/cross-validation").glob("*/fold-1/splits.csv")
        if "slice" in path.read_text().splitlines()[0].split(",")
    )
    splits: dict[str, set[str]] = {}
    for row in read(by_slice):
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert any(len(names) > 1 for names in splits.values())  # that is the leak
    assert result["folds"] == {"dealt": 3, "run": 1}


def test_values_are_overridden_by_their_keys():
    changed = cross_validation.override_params(
        COMMITTED, ["train.epochs=7", "train.augment.flip=0", "split.unit=slice"]
    )
    assert (changed.train.epochs, changed.train.augment.flip, changed.split.unit) == (7, 0, "slice")
    assert changed.gate == COMMITTED.gate


@pytest.mark.parametrize(
    "assignment", ["train.epoch=7", "train.epochs", "epochs=7", "a.b.c=1", "=1"]
)
def test_an_unknown_key_is_an_error_message(assignment):
    with pytest.raises(GliaflowError, match="sets nothing"):
        cross_validation.override_params(COMMITTED, [assignment])


@pytest.mark.parametrize("assignment", ["train.epochs=0", "train.epochs=many", "train.augment=1"])
def test_a_value_out_of_range_is_an_error_message_that_names_the_option(assignment):
    with pytest.raises(GliaflowError, match="--set: train"):
        cross_validation.override_params(COMMITTED, [assignment])
