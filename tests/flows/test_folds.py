"""Cross-validation on a tiny phantom, killed in its second fold, with real stages."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkouts
import pytest

from flows import folds
from pipeline import params
from pipeline.adapters import lifetime
from pipeline.errors import GliaflowError

COMMITTED = params.load(Path(__file__).parents[2] / "params.yaml")
# Long enough to be killed in the middle: a stage sees after two seconds that its caller is gone.
RECIPE = ["--set", "train.epochs=60", "--set", "train.patience=60"]
WANTED = ["cross-validate", "--folds", "3", "--first", "2", *RECIPE]


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def crossed(tmp_path_factory) -> tuple[Path, str]:
    """A checkout after a cross-validation that was killed in fold 2 and called again."""
    root = checkouts.make(tmp_path_factory.mktemp("crossed"))
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *WANTED], cwd=root,
        env=checkouts.environment(root), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout or []:
        if line.startswith("fold 2: train: epoch 3"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (note,) = (root / ".local/cross-validation").glob("*/fold-2/checkpoints/*/state.json")
    holder = note.parents[2] / "training.lock"
    until = time.monotonic() + 60
    while lifetime.identity(int(holder.read_text())) and time.monotonic() < until:
        time.sleep(0.5)  # the stage sees that who called it is gone
    done = checkouts.call(root, "gliaflow", *WANTED)
    assert done.returncode == 0, done.stdout + done.stderr
    return root, done.stdout


@pytest.mark.slow
def test_a_killed_cross_validation_goes_on_in_the_fold_where_it_was(crossed):
    _, said = crossed
    assert "fold 1 of 3: done before" in said
    assert "fold 1: train" not in said
    assert "fold 2: train: goes on after epoch" in said
    assert "2 of 3" not in said  # nothing else was done before


@pytest.mark.slow
def test_every_patient_is_scored_by_a_fold_that_never_saw_it(crossed):
    root, _ = crossed
    rows = read(root / "reports/cross-validation/patients.csv")
    assert len({row["patient"] for row in rows}) == len(rows) > 0
    (trained,) = (root / ".local/cross-validation").iterdir()
    for fold in ("1", "2"):
        dealt = {r["patient"]: r["split"] for r in read(trained / f"fold-{fold}" / "splits.csv")}
        tested = {row["patient"] for row in rows if row["fold"] == fold}
        assert tested == {patient for patient, side in dealt.items() if side == "test"}
        assert set(dealt.values()) == {"train", "validation", "test"}


@pytest.mark.slow
def test_the_scores_are_of_all_patients_worst_first(crossed):
    root, said = crossed
    rows = read(root / "reports/cross-validation/patients.csv")
    dices = [float(row["dice"]) for row in rows]
    assert dices == sorted(dices)
    found = json.loads((root / "reports/cross-validation/metrics.json").read_text())
    assert found["test"]["dice"]["patients"] == len(rows)
    assert found["test"]["dice"]["mean"] == pytest.approx(sum(dices) / len(dices), abs=1e-5)
    assert f"Dice: mean {found['test']['dice']['mean']:.4f}" in said


@pytest.mark.slow
def test_the_page_lists_and_pictures_every_patient_with_its_fold(crossed):
    root, _ = crossed
    page = (root / "reports/cross-validation/index.html").read_text()
    rows = read(root / "reports/cross-validation/patients.csv")
    for row in rows:
        assert f"Fold {row['fold']}: {row['patient']}</h3>" in page
        assert f'data-split="fold {row["fold"]}"' in page
    assert "2 of 3 folds, dealt by patient" in page
    assert 'id="decision"' not in page


@pytest.mark.slow
def test_curves_of_folds_stay_out_of_the_models_experiment(crossed):
    root, _ = crossed
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    assert client.get_experiment_by_name("gliaflow") is None
    assert client.get_experiment_by_name("gliaflow cross-validation") is not None


@pytest.mark.slow
def test_another_recipe_is_another_cross_validation(crossed):
    root, _ = crossed
    done = checkouts.call(root, "gliaflow", *WANTED, "--set", "train.epochs=1", "--first", "1")
    assert "fold 1: train: epoch 1" in done.stdout
    assert len(list((root / ".local/cross-validation").iterdir())) == 2


@pytest.mark.slow
def test_more_folds_than_patients_are_a_sentence(crossed):
    root, _ = crossed
    done = checkouts.call(root, "gliaflow", "cross-validate", "--folds", "50")
    assert done.returncode == 1
    assert "has nobody in" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_another_way_of_scoring_trains_nothing_anew(crossed):
    root, _ = crossed
    assert checkouts.call(root, "gliaflow", *WANTED).returncode == 0  # its table once more
    before = read(root / "reports/cross-validation/patients.csv")
    done = checkouts.call(root, "gliaflow", *WANTED, "--set", "evaluate.threshold=0.9")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fold 1: evaluate" in done.stdout
    assert "train: " not in done.stdout
    after = read(root / "reports/cross-validation/patients.csv")
    fewer = {row["patient"]: int(row["predicted_pixels"]) for row in after}
    more = {row["patient"]: int(row["predicted_pixels"]) for row in before}
    assert all(fewer[patient] <= more[patient] for patient in more)
    assert sum(fewer.values()) < sum(more.values())
    again = checkouts.call(root, "gliaflow", *WANTED)
    assert "fold 1 of 3: done before" in again.stdout  # the first way's scores are still there
    assert read(root / "reports/cross-validation/patients.csv") == before


def test_values_are_set_by_their_place_in_the_file():
    found = folds.change(COMMITTED, ["train.epochs=7", "train.augment.flip=0", "split.unit=slice"])
    assert (found.train.epochs, found.train.augment.flip, found.split.unit) == (7, 0, "slice")
    assert found.gate == COMMITTED.gate


@pytest.mark.parametrize("wrong", ["train.epoch=7", "train.epochs", "epochs=7", "a.b.c=1", "=1"])
def test_a_key_that_is_not_there_is_a_sentence(wrong):
    with pytest.raises(GliaflowError, match="sets nothing"):
        folds.change(COMMITTED, [wrong])


@pytest.mark.parametrize("wrong", ["train.epochs=0", "train.epochs=many", "train.augment=1"])
def test_a_value_out_of_range_is_a_sentence(wrong):
    with pytest.raises(GliaflowError, match="the values set: train"):
        folds.change(COMMITTED, [wrong])


@pytest.mark.slow
def test_leakage_is_one_recipe_with_its_folds_dealt_both_ways(crossed):
    root, _ = crossed
    done = checkouts.call(root, "gliaflow", "leakage", "--folds", "3", "--first", "1", *RECIPE)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((root / "reports/leakage.json").read_text())
    for score in ("dice", "tversky", "seed_tversky"):
        gain = found["slice"][score]["mean"] - found["patient"][score]["mean"]
        assert found["flattered"][score] == pytest.approx(gain, abs=1e-6)
        assert f"{found['slice'][score]['mean']:.4f}" in done.stdout
    by_slice = next(
        place
        for place in (root / ".local/cross-validation").glob("*/fold-1/splits.csv")
        if "slice" in place.read_text().splitlines()[0].split(",")
    )
    sides: dict[str, set[str]] = {}
    for row in read(by_slice):
        sides.setdefault(row["patient"], set()).add(row["split"])
    assert any(len(found) > 1 for found in sides.values())  # that is the leak
    assert found["folds"] == {"dealt": 3, "run": 1}
