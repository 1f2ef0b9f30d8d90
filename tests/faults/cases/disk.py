"""Full disks: each command says so in one sentence, and ends well once there is room.

The checkout, with its caches and MLflow's database, lies on a separate small disk. Prefect's
database does not, so that it is the pipeline that meets the full disk.
"""

import hashlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faults.disks import fill, kept_full, small_disk
from faults.matrix import fault
from faults.workplace import RUN, Workplace, check_refused, check_same, sentence_of, until

DISK_MIB = 256
# Of each stage, an output that DVC removes before the stage begins.
OUTPUTS = {
    "fetch": "data/raw",
    "ingest": "data/manifest.csv",
    "validate": "data/quarantine.csv",
    "split": "data/splits.csv",
    "train": "models/resunet.keras",
    "evaluate": "reports/metrics.json",
    "report": "reports/evaluation.html",
}
NEEDS = "return int(MIN_FREE + total + CHECKPOINTS_PER_MODEL * models)"
# The code of a stage is changed, so that it runs again. That makes another version of its model.
DIFFERENT = {"dvc.lock", "champion", "versions", "verdicts"}
MUST_HOLD = "a sentence with disk and room left; the old output survives; with room, it succeeds"


@fault(
    "disk",
    "full before `gliaflow run`",
    must_hold="a sentence with disk, room needed and free",
    is_short=True,
)
def full_before_a_run(place: Workplace) -> str:
    with place.on_small_disk(DISK_MIB) as disk:
        fill(disk, leave=2**20)
        return check_refused(place.call(*RUN), str(disk), "needs about 64 MiB", "MiB free")


@fault("disk", "full, then the registry is read", must_hold="reading still works")
def full_and_read(place: Workplace) -> str:
    with place.on_small_disk(DISK_MIB) as disk:
        fill(disk)
        done = place.call("gliaflow", "registry")
        assert done.returncode == 0, done.stderr
    return "the versions were printed"


def full_in_stage(place: Workplace, *, stage: str) -> str:
    """Fill the disk once DVC has begun with a stage, and keep it full until the run ends."""
    output = place.root / OUTPUTS[stage]
    with place.on_small_disk(DISK_MIB):
        _forget_needs(place)
        with (place.root / f"pipeline/stages/{stage}.py").open("a") as code:
            code.write("# changed, so that the stage runs again\n")
        old = _digest(output)
        sentence = _run_until_full(place, has_begun=lambda: not output.exists())
        survivor = _survivor(place, output, old)
        done = place.call(*RUN)
        assert done.returncode == 0, done.stdout[-800:] + done.stderr[-800:]
        check_same(place, but=DIFFERENT)
    return f"{sentence}; {survivor}"


for stage in OUTPUTS:
    fault("disk", f"full while {stage} works", must_hold=MUST_HOLD)(
        partial(full_in_stage, stage=stage)
    )


@fault(
    "disk",
    "full while a version is registered, then promoted",
    must_hold="a sentence each; the registry is as before; with room, both succeed",
)
def full_while_registering(place: Workplace) -> str:
    with place.on_small_disk(DISK_MIB) as disk:
        _forget_needs(place)
        place.change(train={"epochs": 6})
        assert place.call("dvc", "repro").returncode == 0
        log = place.folder / "full.log"
        registering = _run_until_full(
            place, has_begun=lambda: "report: up to date" in log.read_text(errors="replace")
        )
        assert len(place.registry()["versions"]) == 1
        assert place.call(*RUN).returncode == 0
        before = place.registry()
        other = str(3 - before["champion"])
        promotion = ("gliaflow", "promote", other, "--override", "agreed", "--by", "Ada Roe")
        with kept_full(disk):
            promoting = check_refused(place.call(*promotion), str(disk), "free")
        assert place.registry() == before
        assert place.call(*promotion).returncode == 0
        assert place.registry()["champion"] == int(other)
    return f"{registering}; {promoting}"


@fault(
    "disk",
    "full while `predict` writes",
    must_hold="a sentence that names the disk; with room and a new folder, it succeeds",
)
def full_while_predicting(place: Workplace) -> str:
    with small_disk(8) as disk:
        command = ("gliaflow", "predict", "data/raw/source", "--out", str(disk / "out"))
        filler = fill(disk, leave=2**16)
        sentence = check_refused(place.call(*command), str(disk), "free")
        assert not (disk / "out/patients.csv").exists(), "a part looks complete"
        filler.unlink()
        shutil.rmtree(disk / "out", ignore_errors=True)
        done = place.call(*command)
        assert done.returncode == 0, done.stderr
    return sentence.replace(str(disk), "DISK")


def _forget_needs(place: Workplace) -> None:
    """Let stages begin without a look at the free room, as if the disk filled up afterwards."""
    path = place.root / "pipeline/adapters/checkout/dvc_lock.py"
    code = path.read_text()
    assert NEEDS in code, f"{path} changed: {NEEDS} is gone"
    path.write_text(code.replace(NEEDS, "return 0"))


def _run_until_full(place: Workplace, *, has_begun: Callable[[], bool]) -> str:
    """Start a run, fill the disk when it has begun with something; return its last sentence."""
    log = place.folder / "full.log"
    process = place.start(*RUN, log=log, PREFECT_HOME=str(place.folder / "prefect"))
    until(lambda: has_begun() or process.poll() is not None, seconds=240, what="it has begun")
    with kept_full(place.root):
        code = process.wait(timeout=240)
    output = log.read_text(errors="replace")
    assert code == 1, f"exit code {code}: {output[-800:]}"
    sentence = sentence_of(output)
    assert str(place.root) in sentence and "free" in sentence, output[-1500:]
    # Libraries log some errors themselves before they raise them.
    return f"{sentence} (after a library's traceback)" if "Traceback" in output else sentence


def _survivor(place: Workplace, output: Path, digest: str) -> str:
    """Check that the output of the last run is in its place or in DVC's cache."""
    if _digest(output) == digest:
        return "the old output is in its place"
    done = place.call("dvc", "checkout", "--force", str(output))
    assert done.returncode == 0, done.stderr[-500:]
    assert _digest(output) == digest, f"{output} changed"
    return "`dvc checkout` brings the old output back"


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files in a folder with their names.

    A file that does not exist counts as an empty folder.
    """
    paths = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for item in paths:
        if item.is_file():
            digest.update(item.name.encode() + item.read_bytes())
    return digest.hexdigest()
