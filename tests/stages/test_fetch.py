"""The stage on sources made by hand; tests/adapters/scans/test_sources.py has the kinds of sources."""

import os
from pathlib import Path

import pytest
from making import content, image, parameters, write_patient, write_tif

from pipeline.adapters.scans import batches
from pipeline.errors import GliaflowError
from pipeline.stages import fetch

A, B = "TCGA_CS_1", "TCGA_DU_2"


@pytest.fixture
def source(tmp_path) -> Path:
    """A source with patient A, and an empty `incoming` beside it."""
    write_patient(tmp_path / "scans" / A)
    (tmp_path / "incoming").mkdir()
    return tmp_path / "scans"


def run(source: Path, **limits: int) -> dict[str, bytes]:
    """Run the stage; return what it wrote."""
    root = source.parent
    section = {"source": str(source)} | limits
    fetch.run(parameters(fetch=section), incoming=root / "incoming", raw=root / "raw")
    return content(root / "raw")


def test_source_and_batches_are_copied_with_their_notes(source):
    batch = source.parent / "incoming" / "march"
    write_patient(batch / B)
    batches.write_note(batch, batches.BatchNote("2026-01-01T09:00:00+00:00", "x"))
    written = run(source)
    assert {name.rpartition("/")[0] for name in written} == {f"source/{A}", f"march/{B}", "march"}
    assert "march/batch.json" in written


def test_what_is_skipped_is_printed(source, capsys):
    (source / "TCGA_X").mkdir()
    os.mkfifo(source / A / f"{A}_4.tif")
    run(source)
    assert capsys.readouterr().out.splitlines() == [
        f"fetch: 6 files from {source}",
        f"fetch: 2 folders or files skipped: {A}/{A}_4.tif (not a regular file), TCGA_X (no tif)",
    ]


def test_without_anything_skipped_there_is_one_line(source, capsys):
    run(source)
    assert capsys.readouterr().out == f"fetch: 6 files from {source}\n"


@pytest.mark.parametrize("key", ["max_file_mib", "max_patient_files", "max_batch_patients"])
@pytest.mark.parametrize("place", ["scans", "incoming/march"])
def test_source_and_batches_keep_the_limits(source, key, place):
    root = source.parent
    for patient in (A, B):
        write_patient(root / place / patient)
    write_tif(root / place / A / f"{A}_4.tif", image(A, 4, size_px=640))  # 1.2 MiB
    limit = {"max_file_mib": 1, "max_patient_files": 6, "max_batch_patients": 1}[key]
    with pytest.raises(GliaflowError, match=rf"allowed: {limit} \(fetch\.{key} in params\.yaml\)"):
        run(source, **{key: limit})


def test_a_batch_with_the_name_of_the_source_is_refused(source):
    write_patient(source.parent / "incoming" / "source" / B)
    with pytest.raises(GliaflowError, match=r"cannot be the folder of a batch .*rename it"):
        run(source)


def test_a_batch_whose_name_is_not_valid_utf8_is_refused(source):
    write_patient(source.parent / "incoming" / os.fsdecode(b"m\xff") / B)
    with pytest.raises(GliaflowError, match="cannot be the folder of a batch") as raised:
        run(source)
    assert str(raised.value).isascii()


def test_a_linked_slice_of_a_batch_is_copied_as_its_file(source):
    batch = source.parent / "incoming" / "march" / B
    write_patient(batch, numbers=(1, 2))
    (batch / f"{B}_3.tif").symlink_to(f"{B}_2.tif")
    written = run(source)
    assert written[f"march/{B}/{B}_3.tif"] == written[f"march/{B}/{B}_2.tif"]
    assert not any(path.is_symlink() for path in (source.parent / "raw").rglob("*"))
