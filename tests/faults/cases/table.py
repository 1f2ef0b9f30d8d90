"""Tables, records and databases that were cut off, edited, replaced or lost."""

import json
import os
import shutil

from faults.matrix import fault
from faults.workplace import RUN, SAME, SENTENCE, Workplace, check_refused, check_same, until


@fault(
    "table",
    "manifest cut at a line end",
    must_hold="no stage builds on it; a run mends it",
    is_short=True,
)
def cut_manifest(place: Workplace) -> str:
    manifest = place.root / "data/manifest.csv"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.unlink()  # a hard link to DVC's cache
    manifest.write_text("".join(lines[: len(lines) // 2]))
    done = place.call("dvc", "repro", "--single-item", "--force", "evaluate")
    assert done.returncode, "evaluate ran"
    sentence = next(
        x for x in done.stderr.splitlines() + done.stdout.splitlines() if "gliaflow:" in x
    )
    assert "manifest.csv is not what the stage ingest wrote" in sentence, sentence
    assert place.call(*RUN).returncode == 0
    check_same(place)
    return sentence.removeprefix("gliaflow: ")


@fault("table", "dvc.lock with a merge conflict", must_hold=SENTENCE, is_short=True)
def conflicted_lock(place: Workplace) -> str:
    lock = place.root / "dvc.lock"
    lock.write_text("<<<<<<< HEAD\n" + lock.read_text())
    return check_refused(place.call(*RUN), "dvc")


@fault("table", "DVC's lock names a process that is another program", must_hold=SAME)
def reused_process_number(place: Workplace) -> str:
    place.change(train={"epochs": 6})
    holder = {"pid": os.getppid(), "cmd": "dvc repro"}
    path = place.root / ".dvc/tmp/rwlock"
    path.parent.mkdir(exist_ok=True)
    model = str(place.root / "models/resunet.keras")
    path.write_text(json.dumps({"read": {}, "write": {model: holder}}))
    done = place.call(*RUN)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    assert len(place.registry()["versions"]) == 2
    return "the entry was dropped and the run ended"


@fault("table", "DVC's lock cut off by a full disk", must_hold=SAME, is_short=True)
def cut_rwlock(place: Workplace) -> str:
    path = place.root / ".dvc/tmp/rwlock"
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"read": {"data/ra')
    done = place.call(*RUN)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    check_same(place)
    return "the file was dropped and the run ended"


@fault("table", "model file of the champion replaced", must_hold="nothing is loaded; a sentence")
def replaced_model(place: Workplace) -> str:
    (model,) = (place.root / "mlruns").rglob("*.keras")
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    shutil.rmtree(place.root / ".local/runtimes", ignore_errors=True)
    done = place.call("gliaflow", "predict", "data/raw/source", "--out", "out")
    return check_refused(done, "are not those that were registered")


@fault("table", "registry database damaged", must_hold=SENTENCE)
def damaged_registry(place: Workplace) -> str:
    database = place.root / "mlflow.db"
    content = bytearray(database.read_bytes())
    content[4096 : 4096 * 8] = b"\xff" * (4096 * 7)
    database.write_bytes(content)
    return check_refused(place.call("gliaflow", "registry"))


@fault(
    "table",
    "registry database gone",
    must_hold="it is said, not replaced by an empty one",
    is_short=True,
)
def missing_registry(place: Workplace) -> str:
    (place.root / "mlflow.db").unlink()
    done = place.call("gliaflow", "registry")
    return check_refused(done, "was there before and is gone")


@fault("table", "parameters edited while a stage trains", must_hold="nothing is registered")
def edited_params(place: Workplace) -> str:
    place.change(train={"epochs": 9})
    log = place.folder / "edited.log"
    process = place.start(*RUN, log=log)
    until(lambda: "train: epoch 2" in log.read_text(errors="replace"), seconds=90, what="epoch 2")
    place.change(train={"epochs": 8})
    assert process.wait(timeout=120) == 1
    assert place.registry()["versions"] == place.registry()["versions"][:1]
    return log.read_text(errors="replace").splitlines()[-1].removeprefix("gliaflow: ")
