"""The pipeline on a tiny phantom, with real DVC, Great Expectations, Keras, Prefect and MLflow."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import checkouts
import pytest
import yaml

from pipeline.adapters.process import http_health, processes

STAGES = ["fetch", "ingest", "validate", "split", "train", "evaluate", "report"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A checkout after its first `gliaflow run`."""
    folder = checkouts.make(tmp_path_factory.mktemp("built"))
    done = checkouts.call(folder, "gliaflow", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "run.log").write_text(done.stdout + done.stderr)
    return folder


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def stages_run(output: str) -> list[str]:
    """Return the stages that DVC ran, by its output."""
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


def registry(folder: Path) -> dict:
    done = checkouts.call(folder, "gliaflow", "registry", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_writes_every_documented_file(built):
    for name in [
        "data/manifest.csv",
        "data/quarantine.csv",
        "data/splits.csv",
        "models/resunet.keras",
        "models/history.csv",
        "reports/metrics.json",
        "reports/patients.csv",
        "reports/decision.json",
        "reports/index.html",
        "reports/validation/index.html",
    ]:
        assert (built / name).stat().st_size > 0, name


def test_file_formats_that_other_programs_read_are_stable(built):
    assert {"patient", "site", "slice", "tumour_pixels"} <= set(
        read(built / "data/manifest.csv")[0]
    )
    assert list(read(built / "data/splits.csv")[0]) == ["patient", "split"]
    patients = read(built / "reports/patients.csv")
    assert {"patient", "split", "site", "tversky", "dice"} <= set(patients[0])
    scores = json.loads((built / "reports/metrics.json").read_text())
    test_rows = [row for row in patients if row["split"] == "test"]
    assert scores["test"]["tversky"]["patients"] == len(test_rows)
    mean = sum(float(row["tversky"]) for row in test_rows) / len(test_rows)
    assert scores["test"]["tversky"]["mean"] == pytest.approx(mean, abs=1e-5)
    assert set(scores["seed_tversky"]) == {"mean", "batches"}
    decision = json.loads((built / "reports/decision.json").read_text())
    assert decision["verdict"] == "promote"
    assert all(reason["sentence"] for reason in decision["reasons"])


def test_no_test_patient_was_trained_on(built):
    splits = {row["patient"]: row["split"] for row in read(built / "data/splits.csv")}
    assert len(splits) == len(read(built / "data/splits.csv"))
    for row in read(built / "reports/patients.csv"):
        assert splits[row["patient"]] == row["split"] != "train"


def test_the_report_shows_the_decision(built):
    sentence = json.loads((built / "reports/decision.json").read_text())["reasons"][0]["sentence"]
    page = (built / "reports/index.html").read_text()
    assert sentence in page
    assert sentence not in (built / "reports/evaluation.html").read_text()


def test_mlflow_has_every_epoch_once(built):
    code = """
import mlflow
client = mlflow.MlflowClient("sqlite:///mlflow.db")
(run,) = client.search_runs([client.get_experiment_by_name("gliaflow").experiment_id])
print([m.step for m in client.get_metric_history(run.info.run_id, "val_tversky")])
print(sorted(i.dataset.name for i in run.inputs.dataset_inputs), run.info.status)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=built, capture_output=True, text=True)
    steps, datasets_and_status = done.stdout.splitlines()
    assert steps == "[1, 2, 3, 4, 5]"
    assert datasets_and_status == "['test', 'train', 'validation'] FINISHED"


def test_a_second_repro_runs_nothing_and_dvc_shows_metrics_and_plots_offline(built):
    done = checkouts.call(built, "dvc", "repro")
    assert done.returncode == 0
    assert stages_run(done.stdout) == []
    metrics = checkouts.call(built, "dvc", "metrics", "show")
    assert "tversky.mean" in metrics.stdout
    plots = checkouts.call(built, "dvc", "plots", "show")
    assert plots.returncode == 0, plots.stderr
    page = (built / "dvc_plots/index.html").read_text()
    assert "curves.png" in page
    assert "http://" not in page
    assert "https://" not in page


def test_an_empty_registry_gets_the_same_version_from_the_cache_without_training(built):
    before = registry(built)
    for path in built.glob("mlflow.db*"):
        path.unlink()
    refused = checkouts.call(built, "gliaflow", "registry")
    assert refused.returncode == 1
    assert "was there before and is gone" in refused.stderr
    (built / ".local/registry.path").unlink()  # as the message says
    done = checkouts.call(built, "gliaflow", "run")
    assert done.returncode == 0, done.stderr
    assert stages_run(done.stdout + done.stderr) == []
    after = registry(built)
    assert [v["digest"] for v in after["versions"]] == [v["digest"] for v in before["versions"]]
    assert after["champion"] == 1
    assert len(after["decisions"]) == 1


def test_running_again_adds_no_version_and_no_decision(built):
    before = registry(built)
    done = checkouts.call(built, "gliaflow", "run")
    assert done.returncode == 0, done.stderr
    assert registry(built) == before


MODEL = "models:/phantom-resunet@champion"


def test_the_champion_loads_with_only_mlflow_and_its_requirements(built, tmp_path):
    code = f"""
import sys
sys.path = [p for p in sys.path if p not in ("", {str(built)!r}, {str(checkouts.ROOT)!r})]
sys.modules.update(dict.fromkeys(["pipeline", "gliaflow", "flows", "prefect", "dvc"]))
import mlflow, numpy as np
mlflow.set_tracking_uri("sqlite:///{built}/mlflow.db")
scan = np.full((2, 64, 64, 3), 90, np.uint8)
output = np.asarray(mlflow.keras.load_model({MODEL!r})(scan))
answer = mlflow.pyfunc.load_model({MODEL!r}).predict(scan)
print(output.shape, answer["mask"].shape, answer["mask"].dtype, answer["probability"].dtype)
print(float(np.abs(output[..., 0] - answer["probability"]).max()) < 1e-4)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.stdout.splitlines()[-2:] == [
        "(2, 64, 64, 1) (2, 64, 64) uint8 float32",
        "True",
    ], done.stderr


@pytest.fixture(scope="module")
def predicted(built, tmp_path_factory) -> tuple[dict, list]:
    """A scan as JSON that MLflow takes, and the masks that `gliaflow predict` gives for it."""
    out = tmp_path_factory.mktemp("predicted") / "out"
    rows = read(built / "reports/patients.csv")
    patient = max(rows, key=lambda row: int(row["predicted_pixels"]))["patient"]
    folder = built / "data/raw/source" / patient
    done = checkouts.call(built, "gliaflow", "predict", str(folder), "--out", str(out))
    assert done.returncode == 0, done.stderr
    numbers = range(1, len(list((out / patient).glob("*_mask.tif"))) + 1)
    scan = [decode(folder / f"{patient}_{number}.tif").tolist() for number in numbers]
    masks = [decode(out / patient / f"{patient}_{number}_mask.tif") for number in numbers]
    assert any(mask.any() for mask in masks)
    return {"inputs": scan}, [(mask > 0).astype(int).tolist() for mask in masks]


def decode(path: Path):
    from pipeline.adapters.scans.image_files import decode_image

    return decode_image(path.read_bytes())


def serving_environment(built: Path) -> dict[str, str]:
    """Return an environment in which MLflow finds the registry, and not this project's code."""
    environment = checkouts.environment(built) | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{built}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return {name: value for name, value in environment.items() if name != "PYTHONPATH"}


@pytest.mark.slow
def test_mlflow_predicts_the_same_masks_from_a_file(built, predicted, tmp_path):
    scan, masks = predicted
    (tmp_path / "scan.json").write_text(json.dumps(scan))
    subprocess.run(
        [sys.executable, "-m", "mlflow", "models", "predict", "-m", MODEL, "--env-manager", "local",
         "-i", "scan.json", "-o", "answer.json", "-t", "json"],
        cwd=tmp_path, env=serving_environment(built), check=True, timeout=300,
    )  # fmt: skip
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer.get("predictions", answer)["mask"] == masks


@pytest.mark.slow
def test_mlflow_serves_the_same_masks_by_http_and_refuses_other_input(built, predicted, tmp_path):
    scan, masks = predicted
    port = http_health.free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", "serve", "-m", MODEL, "--env-manager", "local",
         "-h", "127.0.0.1", "-p", str(port)],
        cwd=tmp_path, env=serving_environment(built), start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        assert http_health.wait_for_answer(
            f"{url}/ping", seconds=240, is_alive=lambda: server.poll() is None
        )
        status, answer = post(f"{url}/invocations", scan)
        assert (status, answer["predictions"]["mask"]) == (200, masks)
        status, answer = post(f"{url}/invocations", {"inputs": [[1, 2], [3, 4]]})
        assert status == 400
        assert "expected a scan (slices, 64, 64, 3)" in answer["message"]
    finally:
        processes.end_group(server.pid, grace_seconds=10)
        server.wait(timeout=10)


def post(url: str, body: dict) -> tuple[int, dict]:
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_predict_writes_masks_and_scores_and_names_unreadable_patients(built, tmp_path):
    scans = tmp_path / "scans"
    patients = sorted((built / "data/raw/source").glob("PHANTOM_*"))
    with_masks, without, broken = (scans / path.name for path in patients[:3])
    for source, target in zip(patients, (with_masks, without, broken), strict=False):
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    with_masks.rename(tmp_path / with_masks.name)
    with_masks.symlink_to(tmp_path / with_masks.name)
    for mask in without.glob("*_mask.tif"):
        mask.unlink()
    next(broken.glob("*_2.tif")).write_bytes(b"not a tif")
    done = checkouts.call(built, "gliaflow", "predict", str(scans), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    rows = {row["patient"]: row for row in read(tmp_path / "out/patients.csv")}
    assert set(rows) == {with_masks.name, without.name}
    assert rows[with_masks.name]["dice"] != ""
    assert rows[without.name]["dice"] == ""
    (refused,) = read(tmp_path / "out/refused.csv")
    assert refused["patient"] == broken.name
    assert "_2.tif" in refused["file"]
    slices = [row for row in read(tmp_path / "out/slices.csv") if row["patient"] == without.name]
    masks = sorted((tmp_path / "out" / without.name).glob("*_mask.tif"))
    assert len(masks) == len(slices) == len(list(without.glob("*.tif")))
    tumour_pixels = {mask.name: count_tumour(mask) for mask in masks}
    for row in slices:
        assert tumour_pixels[f"{without.name}_{row['slice']}_mask.tif"] == int(row["tumour_pixels"])
    again = checkouts.call(built, "gliaflow", "predict", str(scans), "--out", str(tmp_path / "out"))
    assert again.returncode == 1
    assert "not empty" in again.stderr


def count_tumour(path: Path) -> int:
    from pipeline.adapters.scans.image_files import decode_image

    mask = decode_image(path.read_bytes())
    assert set(mask.flat) <= {0, 255}
    return int((mask == 255).sum())


def test_a_rejection_exits_with_0_and_an_override_is_recorded_with_its_reason(built):
    before = (built / "params.yaml").read_text()
    checkouts.change(built, gate={"min_tversky": 0.999})
    refused = checkouts.call(built, "gliaflow", "promote", "1")
    assert refused.returncode == 0
    assert "Rejected" in refused.stdout
    without_name = checkouts.call(built, "gliaflow", "promote", "1", "--override", "a reason")
    assert without_name.returncode == 2
    overridden = checkouts.call(
        built, "gliaflow", "promote", "1", "--override", "agreed", "--by", "Ada Roe"
    )
    assert overridden.returncode == 0, overridden.stderr
    unknown = checkouts.call(built, "gliaflow", "promote", "7")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("gliaflow: phantom-resunet has no version 7")
    (built / "params.yaml").write_text(before)
    last, rejection, first = registry(built)["decisions"]
    assert (last["why"], last["who"], last["verdict"]) == ("agreed", "Ada Roe", "promote")
    assert rejection["verdict"] == "reject"
    assert first["verdict"] == "promote"


def test_a_failed_stage_ends_the_run_with_its_error_message(built):
    before = (built / "params.yaml").read_text()
    checkouts.change(built, validate={"min_patients": 500})
    done = checkouts.call(built, "gliaflow", "run")
    (built / "params.yaml").write_text(before)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("gliaflow: ")]
    assert errors == [
        "gliaflow: validate: 24 patients are fit to use; expected at least 500 "
        "(validate.min_patients). data/quarantine.csv names patient, rule and file"
    ]
    assert "Traceback" not in done.stdout + done.stderr


def test_prefect_shows_scores_decision_and_a_link_to_the_report(built, monkeypatch):
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    checkouts.call(built, "dvc", "repro")
    monkeypatch.chdir(built)
    monkeypatch.setenv("PATH", checkouts.environment(built)["PATH"])
    monkeypatch.setenv("PYTHONPATH", str(built))
    with prefect_test_harness(server_startup_timeout=120):
        from flows.retrain import retrain

        decision = retrain(str(built))
        with get_client(sync_client=True) as client:
            artifacts = {artifact.key: artifact for artifact in client.read_artifacts()}
            tasks = [run.name for run in client.read_task_runs()]
    assert decision["verdict"] == "promote"
    assert {"metrics", "decision", "report"} <= set(artifacts)
    assert "tversky" in str(artifacts["metrics"].data)
    assert decision["reasons"][0]["sentence"] in str(artifacts["decision"].data)
    assert (built / "reports/index.html").as_uri() in str(artifacts["report"].data)
    assert set(tasks) == {*STAGES, "register", "decide", "promote", "push"}


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """Another checkout, built by `dvc repro` alone."""
    folder = checkouts.make(tmp_path_factory.mktemp("again"))
    done = checkouts.call(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_two_checkouts_give_the_same_dvc_lock_byte_for_byte(built, again):
    checkouts.call(built, "dvc", "repro")
    assert (built / "dvc.lock").read_bytes() == (again / "dvc.lock").read_bytes()


def test_scans_are_stored_at_most_twice(again):
    """Once as files and once as arrays; the cache holds links to both."""
    folders = [again / "data/raw", again / "data/scans", again / ".dvc/cache/files"]
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    bytes_by_inode = {path.stat().st_ino: path.stat().st_size for path in paths}
    raw_bytes = sum(path.stat().st_size for path in (again / "data/raw").rglob("*.tif"))
    others = [again / "models/resunet.keras", *(again / "reports").rglob("*")]
    other_bytes = sum(path.stat().st_size for path in others if path.is_file())
    assert sum(bytes_by_inode.values()) <= 2.1 * raw_bytes + other_bytes


def stage_command(folder: Path, stage: str) -> list[str]:
    words = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"][stage]["cmd"].split()
    return [sys.executable, *words[1:]]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_killed_training_resumes_and_ends_with_the_same_bytes(again):
    checkouts.change(again, train={"epochs": 6, "seed": 5})
    uninterrupted = subprocess.run(
        stage_command(again, "train"), cwd=again, env=checkouts.environment(again),
        capture_output=True, text=True,
    )  # fmt: skip
    assert uninterrupted.returncode == 0, uninterrupted.stderr
    names = ("models/resunet.keras", "models/history.csv")
    expected = {name: digest(again / name) for name in names}
    output = ""
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--force", "--single-item", "train"],
        cwd=again, env={**checkouts.environment(again), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        for line in process.stdout:
            output += line
            if "train: epoch 2" in line:
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.wait(timeout=30)
    assert "resumes after" not in output
    time.sleep(1)
    assert not (again / "models/resunet.keras").exists()
    done = checkouts.call(again, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert stages_run(done.stdout) == ["train", "evaluate", "report"]
    assert "train: resumes after epoch" in done.stdout
    assert "train: epoch 1:" not in done.stdout
    assert {name: digest(again / name) for name in names} == expected


def test_a_loss_that_is_not_finite_ends_training_with_an_error_message(again):
    checkouts.change(again, train={"learning_rate": 1.0, "epochs": 2, "missed_weight": 0.7})
    losses = again / "pipeline/network/losses.py"
    code = losses.read_text()
    assert "maximum(1.0 - index, floor)" in code
    losses.write_text(code.replace("maximum(1.0 - index, floor)", "log(index - 2.0)"))
    done = subprocess.run(
        stage_command(again, "train"), cwd=again, env=checkouts.environment(again),
        capture_output=True, text=True,
    )  # fmt: skip
    losses.write_text(code)
    assert done.returncode == 1
    assert "gliaflow: train: the loss of epoch 1 is nan" in done.stderr
    assert "train.learning_rate" in done.stderr
    assert "Traceback" not in done.stderr


def test_commands_outside_a_checkout_end_with_one_line(tmp_path):
    for command in (["run"], ["registry"], ["promote", "1"], ["predict", ".", "--out", "x"]):
        done = checkouts.call(tmp_path, "gliaflow", *command)
        assert done.returncode == 1, command
        (line,) = done.stderr.splitlines()
        assert line.startswith("gliaflow: ")
