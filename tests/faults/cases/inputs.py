"""Input that no reader expects, as a command meets it.

Single files that are changed at random are left to tests/properties/, whose long search is one
entry here.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import checkouts

from faults.matrix import fault
from faults.workplace import RUN, SENTENCE, Workplace, check_refused
from pipeline.adapters.scans import image_files

SECONDS_FOR_PROPERTIES = 900


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


@fault(
    "input",
    "files, tables and requests changed at random: the long search of tests/properties/",
    must_hold="each is read, or refused with a reason, in bounded time and memory",
)
def random_changes(place: Workplace) -> str:
    command = [sys.executable, "-m", "pytest", "tests/properties", "-o", "timeout=900"]
    done = subprocess.run(
        command, cwd=checkouts.ROOT, env=os.environ | {"PROPERTIES": "long"},
        capture_output=True, text=True, timeout=SECONDS_FOR_PROPERTIES,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-800:]
    return done.stdout.strip().splitlines()[-1]
