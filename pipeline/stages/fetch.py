"""Bring the scans in as they are: the phantom, or a source of real ones, and what arrived since."""

from functools import partial
from pathlib import Path

from pipeline.adapters import batches, files, progress, sources
from pipeline.domain import phantom, scans
from pipeline.params import Params, Phantom


def run(params: Params, *, incoming: Path, raw: Path) -> None:
    """Fill `raw/source/` from the source and `raw/<batch>/` from each folder of `incoming`."""
    wanted = params.fetch
    base = raw / batches.SOURCE
    if wanted.source == "phantom":
        count = _draw(wanted.phantom, base, workers=params.ingest.workers)
    else:
        count = sources.copy(
            wanted.source, base, endpoint_url=wanted.endpoint_url, max_gib=wanted.max_gib
        )
    print(f"fetch: {count} files from {wanted.source}")
    for batch in batches.in_order(incoming):
        count = sources.copy(
            str(batch), raw / batch.name, endpoint_url=None, max_gib=wanted.max_gib, link=True
        )
        note = batches.read_note(batch)
        if note is not None:
            batches.write_note(raw / batch.name, note)
        print(f"fetch: {count} files from the batch {batch.name}")


def _draw(wanted: Phantom, into: Path, *, workers: int) -> int:
    names = phantom.patient_names(patients=wanted.patients, seed=wanted.seed)
    write = partial(_write_patient, wanted=wanted, into=into)
    return sum(progress.spread(write, names, workers=workers, label="drawing phantom scans"))


def _write_patient(patient: str, *, wanted: Phantom, into: Path) -> int:
    scan = phantom.draw(patient, slices=wanted.slices, size_px=wanted.size_px, seed=wanted.seed)
    folder = into / patient
    folder.mkdir(parents=True)
    for number, (image, mask) in enumerate(zip(scan.images, scan.masks, strict=True), start=1):
        for pixels, is_mask in ((image, False), (mask.astype("uint8") * 255, True)):
            name = scans.file_name(patient, number, is_mask=is_mask)
            (folder / name).write_bytes(files.encode_tif(pixels))
    return 2 * len(scan.images)
