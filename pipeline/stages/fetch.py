"""Copy the scans, bytes unchanged: first those of the source, then every batch that arrived.

The source is either generated (the phantom) or real scans.
"""

from functools import partial
from pathlib import Path

from pipeline.adapters.process import progress
from pipeline.adapters.scans import batches, image_files, sources
from pipeline.adapters.scans.limits import Limits
from pipeline.adapters.scans.listing import describe_skipped
from pipeline.adapters.scans.paths import printable
from pipeline.adapters.scans.sources import Copied
from pipeline.domain import phantom, scans
from pipeline.errors import GliaflowError
from pipeline.params import Params, Phantom


def run(params: Params, *, incoming: Path, raw: Path) -> None:
    """Fill `raw/source/` from the source and `raw/<batch>/` from each folder of `incoming`.

    Batches are hard-linked where the file system allows it.

    Raises:
        GliaflowError: as `sources.copy_source`; or a folder of `incoming` has a name that
            cannot be used.
    """
    section, limits = params.fetch, Limits.from_params(params.fetch)
    folder = raw / batches.SOURCE
    if section.source == "phantom":
        copied = Copied(_generate(section.phantom, folder, workers=params.ingest.workers), ())
    else:
        copied = sources.copy_source(
            section.source, folder, endpoint_url=section.endpoint_url, limits=limits
        )
    _report(copied, section.source)
    for batch in batches.in_arrival_order(incoming):
        _check_name(batch)
        copied = sources.copy_source(
            str(batch), raw / batch.name, endpoint_url=None, limits=limits, link=True
        )
        note = batches.read_note(batch)
        if note is not None:
            batches.write_note(raw / batch.name, note)
        _report(copied, f"the batch {batch.name}")


def _report(copied: Copied, origin: str) -> None:
    """Print how many files came from a source or batch, and what was skipped in it."""
    print(f"fetch: {copied.files} files from {origin}")
    if copied.skipped:
        print(f"fetch: {describe_skipped(copied.skipped)}")


def _check_name(batch: Path) -> None:
    """Make sure that a batch does not take the place of the source, and that it can be named."""
    fault = scans.name_fault(batch.name)
    if batch.name == batches.SOURCE:
        fault = "the scans of fetch.source are stored under this name"
    if fault:
        raise GliaflowError(
            f"{printable(batch)} cannot be the folder of a batch ({fault}); rename it"
        )


def _generate(section: Phantom, folder: Path, *, workers: int) -> int:
    """Write the synthetic scans; return the number of files."""
    names = phantom.patient_names(patients=section.patients, seed=section.seed)
    write = partial(_write_patient, section=section, into=folder)
    label = "generating synthetic scans"
    return sum(progress.map_parallel(write, names, workers=workers, label=label))


def _write_patient(patient: str, *, section: Phantom, into: Path) -> int:
    """Write image and mask of every slice of a synthetic patient; return the number of files."""
    scan = phantom.generate(
        patient, slices=section.slices, size_px=section.size_px, seed=section.seed
    )
    folder = into / patient
    folder.mkdir(parents=True)
    for number, (image, mask) in enumerate(zip(scan.images, scan.masks, strict=True), start=1):
        for pixels, is_mask in ((image, False), (mask.astype("uint8") * 255, True)):
            name = scans.file_name(patient, number, is_mask=is_mask)
            (folder / name).write_bytes(image_files.encode_tif(pixels))
    return 2 * len(scan.images)
