"""The faults of the matrix: full disks, kills, tables, servers, input and clocks."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import checkouts

from faults.matrix import fault
from faults.workplace import (
    Workplace,
    check_refused,
    fill,
    kill_at_moments,
    small_disk,
    until,
)

SENTENCE = "one sentence and exit code 1 or 2; nothing is changed"
RUN = ("gliaflow", "run")
SAME = "the next run ends as if nothing had happened: same model, scores, dvc.lock, one version"


# Disk


@fault(
    "disk",
    "full before `gliaflow run`",
    must_hold="a sentence with disk, room needed and free",
    is_short=True,
)
def full_before_a_run(place: Workplace) -> str:
    with small_disk(300) as disk:
        root = checkouts.make(disk / "checkout")
        fill(disk, leave=2**20)
        return check_refused(
            checkouts.call(root, *RUN), str(disk), "needs about 64 MiB", "MiB free"
        )


@fault(
    "disk",
    "fills up while a stage of `gliaflow run` works",
    must_hold="a sentence names the disk; outputs of the last run survive; with room, the run ends",
)
def full_while_a_stage_works(place: Workplace) -> str:
    seen = []
    with small_disk(400) as disk:
        root = checkouts.make(disk / "checkout")
        assert checkouts.call(root, *RUN).returncode == 0
        for epochs, words in ((40, "train: epoch 2"), (6, "evaluate: "), (7, "version 4")):
            checkouts.change(root, train={"epochs": epochs})
            log = place.folder / "full.log"
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    [sys.executable, "-m", *RUN], cwd=root, stdout=stream, stderr=stream,
                    env=checkouts.environment(root),
                )  # fmt: skip
            until(
                lambda log=log, words=words, process=process: (
                    words in log.read_text(errors="replace") or process.poll() is not None
                ),
                seconds=120,
                what=words,
            )
            filler = fill(disk)
            code = process.wait(timeout=120)
            output = log.read_text(errors="replace")
            assert "Traceback" not in output, output[-3000:]
            if code == 0:
                seen.append(f"after {words!r} the run needed no more room")
            else:
                last = output.splitlines()[-1]
                assert str(disk) in last and "free" in last, output[-1500:]
                seen.append(f"after {words!r}: {last.removeprefix('gliaflow: ')}")
            for name in ("models/resunet.keras", "reports/metrics.json", "data/scans"):
                assert (root / name).exists(), f"{name} is gone"
            filler.unlink()
            done = checkouts.call(root, *RUN)
            assert done.returncode == 0, done.stdout[-800:] + done.stderr[-800:]
    return "; ".join(seen).replace(str(disk), "DISK")


@fault("disk", "full, then the registry is read", must_hold="reading still works")
def full_and_read(place: Workplace) -> str:
    with small_disk(400) as disk:
        root = checkouts.make(disk / "checkout")
        assert checkouts.call(root, *RUN).returncode == 0
        fill(disk)
        done = checkouts.call(root, "gliaflow", "registry")
        assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0]


@fault("disk", "full while `predict` writes", must_hold="a sentence that names the disk")
def full_while_predicting(place: Workplace) -> str:
    with small_disk(1) as disk:
        done = place.call("gliaflow", "predict", "data/raw/source", "--out", str(disk / "out"))
        return check_refused(done, str(disk), "free").replace(str(disk), "DISK")


# Kills


@fault("kill", "`gliaflow run`, 20 moments, from nothing", must_hold=SAME)
def kill_runs(place: Workplace) -> str:
    place.forget_results()
    seen = kill_at_moments(place, list(RUN), moments=20, seconds=25, seed=1)
    done = place.call(*RUN)
    assert done.returncode == 0, done.stdout[-800:] + done.stderr[-800:]
    check_same(place)
    return seen


@fault("kill", "`gliaflow promote`, 20 moments", must_hold="champion and last decision agree")
def kill_promotions(place: Workplace) -> str:
    command = ["gliaflow", "promote", "1", "--override", "again", "--by", "Ada Roe"]
    seen = kill_at_moments(place, command, moments=20, seconds=6, seed=2)
    done = place.call(*command)
    assert done.returncode == 0, done.stderr
    report = place.registry()
    assert report["champion"] == 1
    assert report["decisions"][0]["verdict"] == "promote"
    return f"{seen}; {len(report['decisions'])} decisions recorded"


@fault("kill", "`gliaflow predict`, 20 moments", must_hold="a new run gives the same masks")
def kill_predictions(place: Workplace) -> str:
    def masks(name: str) -> dict[str, bytes]:
        folder = place.root / name
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*_mask.tif")}

    scans = ("gliaflow", "predict", "data/raw/source", "--exact", "--out")
    assert place.call(*scans, "expected").returncode == 0
    shutil.rmtree(place.root / ".local/runtimes")
    command = [*scans, "out"]
    kills = 0
    for number in range(20):
        seen = kill_at_moments(place, command, moments=1, seconds=8, seed=number)
        kills += seen.startswith("1 kills")
        shutil.rmtree(place.root / "out", ignore_errors=True)
    done = place.call(*command)
    assert done.returncode == 0, done.stderr
    different = [name for name, mask in masks("expected").items() if masks("out").get(name) != mask]
    assert not different, f"masks differ: {different[:5]} and {len(different)} in total"
    return f"{kills} kills of 20; {len(masks('out'))} masks equal"


def check_same(place: Workplace) -> None:
    """Check that the checkout is as its first run left it."""
    state = place.state()
    different = [name for name in place.expected if state[name] != place.expected[name]]
    assert not different, f"differ from a run that was left alone: {different}"


# Tables and records


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


# Servers


@fault("server", "MLflow's port is dead", must_hold="a sentence with the address within 60 s")
def dead_mlflow(place: Workplace) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    done = place.call("gliaflow", "registry", timeout=60, MLFLOW_TRACKING_URI=address)
    return check_refused(done, address)[:150]


@fault("server", "MLflow's server never answers", must_hold="a sentence with the address")
def silent_mlflow(place: Workplace) -> str:
    with silent_server() as address:
        done = place.call("gliaflow", "registry", timeout=90, MLFLOW_TRACKING_URI=address)
    return check_refused(done, address)[:150]


@fault("server", "the S3 server never answers", must_hold="a sentence with the address within 60 s")
def silent_s3(place: Workplace) -> str:
    with silent_server() as address:
        place.change(fetch={"source": "s3://scans/lgg", "endpoint_url": address})
        login = {"AWS_ACCESS_KEY_ID": "gliaflow", "AWS_SECRET_ACCESS_KEY": "made-up"}
        done = place.call(*RUN, timeout=120, **login)
    return check_refused(done, address)[:200]


class silent_server:  # noqa: N801 - used as a function
    """A server that accepts connections and says nothing."""

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        try:
            while True:
                self._open.append(self._listener.accept()[0])
        except OSError:
            return

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for connection in self._open:
            connection.close()


# Clock


@fault(
    "clock", "set back between two decisions", must_hold="decisions stay in order", is_short=True
)
def clock_set_back(place: Workplace) -> str:
    with sqlite3.connect(place.root / "mlflow.db") as database:  # as if decided in a year's time
        later = 365 * 24 * 3600 * 1000
        database.execute("UPDATE runs SET start_time = start_time + ?", (later,))
    database.close()
    done = place.call("gliaflow", "promote", "1", "--override", "agreed", "--by", "Ada Roe")
    assert done.returncode == 0, done.stderr
    newest = place.registry()["decisions"][0]
    assert newest["override"] == "agreed", newest
    return "the later decision is the newest, under an earlier time"


# Input


@fault(
    "input",
    "folders that link to each other",
    must_hold="each is read once, within seconds",
    is_short=True,
)
def looping_links(place: Workplace) -> str:
    folder = place.folder / "loops"
    names = [folder / f"p{number}" for number in range(9)]
    for name in names:
        name.mkdir(parents=True)
    for name in names:
        for other in names:
            (name / f"to-{other.name}").symlink_to(other)
    done = place.call("gliaflow", "predict", str(folder), "--out", "out", timeout=60)
    shutil.rmtree(folder)
    return check_refused(done, "could be predicted", "refused.csv names").replace(
        str(folder), "FOLDER"
    )


@fault("input", "a fifo or a device as source of scans", must_hold=SENTENCE)
def odd_sources(place: Workplace) -> str:
    fifo = place.folder / "fifo"
    os.mkfifo(fifo)
    sentences = []
    for source in (fifo, Path("/dev/zero")):
        place.change(fetch={"source": str(source)})
        sentences.append(check_refused(place.call(*RUN, timeout=90), str(source)))
    fifo.unlink()
    return sentences[-1]


@fault(
    "input", "a batch with a mask of tumour everywhere", must_hold="only that patient is kept out"
)
def full_masks(place: Workplace) -> str:
    patient = sorted((place.root / "data/raw/source").iterdir())[0]
    batch = place.root / "data/incoming/new/TCGA_QQ_0001_20000101"
    batch.mkdir(parents=True)
    from pipeline.adapters.scans import image_files

    for path in sorted(patient.iterdir()):
        image = image_files.decode_image(path.read_bytes())
        is_mask = path.stem.endswith("_mask")
        pixels = image * 0 + 255 if is_mask else image // 2 + 7
        name = path.name.replace(patient.name, batch.name)
        (batch / name).write_bytes(image_files.encode_tif(pixels.astype("uint8")))
    done = place.call(*RUN)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    rows = (place.root / "data/quarantine.csv").read_text().splitlines()[1:]
    assert rows and all(row.startswith(batch.name) for row in rows), rows
    return rows[0]
