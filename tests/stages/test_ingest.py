import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from making import content, image, mask, parameters, write_patient, write_tif

from pipeline.adapters import arrays, batches, files, scan_files
from pipeline.errors import GliaflowError
from pipeline.stages import ingest

A, B, C = "TCGA_CS_1", "TCGA_DU_2", "TCGA_HT_3"


@pytest.fixture
def raw(tmp_path) -> Path:
    """Patients A and B from the source, sound."""
    for patient in (A, B):
        write_patient(tmp_path / "raw" / "source" / patient)
    return tmp_path / "raw"


def run(raw: Path, *, workers: int = 1, kept: Path | None = None) -> pd.DataFrame:
    """The manifest; arrays lie in `scans` beside it. With `kept` as DVC runs it: on no scans."""
    if kept is not None:
        shutil.rmtree(raw.parent / "scans", ignore_errors=True)
    ingest.run(
        parameters(ingest={"workers": workers}),
        raw=raw,
        scans=raw.parent / "scans",
        manifest=raw.parent / "manifest.csv",
        kept=kept,
    )
    return files.read_table(raw.parent / "manifest.csv")


def with_arrays(raw: Path) -> list[str]:
    return sorted(path.name for path in (raw.parent / "scans").iterdir())


def same_image(table: pd.DataFrame) -> dict[tuple[str, int], str]:
    told = table[table.same_image_as.notna()]
    return {(row.patient, row.slice): row.same_image_as for row in told.itertuples()}


def test_the_manifest_has_a_row_for_every_slice_in_order(raw):
    table = run(raw)
    assert list(zip(table.patient, table.slice, strict=True)) == [
        (A, 1), (A, 2), (A, 3), (B, 1), (B, 2), (B, 3),
    ]  # fmt: skip
    assert list(table.site) == ["CS"] * 3 + ["DU"] * 3
    assert list(table.tumour_pixels) == [0, 5, 5, 0, 5, 5]
    assert list(table.file[:2]) == [f"source/{A}/{A}_1.tif", f"source/{A}/{A}_2.tif"]
    assert table.unreadable.isna().all()


def test_arrays_hold_the_files_pixels_and_are_mapped_not_read(raw):
    run(raw)
    scan = arrays.open_scan(raw.parent / "scans", B)
    assert isinstance(scan.images, np.memmap)
    assert isinstance(scan.masks, np.memmap)
    assert np.array_equal(scan.images, [image(B, number) for number in (1, 2, 3)])
    assert np.array_equal(scan.masks, [mask(pixels) // 255 for pixels in (0, 5, 5)])


def test_ten_comes_after_two(raw):
    write_patient(raw / "source" / C, numbers=range(1, 11))
    table = run(raw)
    assert list(table[table.patient == C].slice) == list(range(1, 11))


@pytest.mark.parametrize("name", [f"{A}_2.tif", f"{A}_2_mask.tif"])
def test_a_broken_patient_gets_a_row_but_no_arrays_and_never_stops_the_good_ones(raw, name):
    (raw / "source" / A / name).write_bytes(b"")
    table = run(raw)
    assert list(table.unreadable.notna()) == [False, True, False, False, False, False]
    assert with_arrays(raw) == [B]


def test_a_missing_fact_is_an_empty_cell_and_leaves_integers_whole(raw):
    (raw / "source" / A / f"{A}_2_mask.tif").unlink()
    run(raw)
    cells = pd.read_csv(raw.parent / "manifest.csv", dtype=str, keep_default_na=False)
    assert list(cells.tumour_pixels) == ["0", "", "5", "0", "5", "5"]
    assert list(cells.mask_height) == ["32", "", "32", "32", "32", "32"]


def test_one_image_under_two_patients_is_told_at_both(raw):
    write_tif(raw / "source" / B / f"{B}_3.tif", image(A, 2))
    assert same_image(run(raw)) == {(A, 2): B, (B, 3): A}


def test_one_image_under_three_patients_names_the_other_two(raw):
    for patient in (B, C):
        write_patient(raw / "source" / patient)
        write_tif(raw / "source" / patient / f"{patient}_1.tif", image(A, 1))
    assert same_image(run(raw)) == {(A, 1): f"{B} {C}", (B, 1): f"{A} {C}", (C, 1): f"{A} {B}"}


def test_one_image_twice_under_one_patient_is_not_told(raw):
    write_tif(raw / "source" / A / f"{A}_3.tif", image(A, 2))
    assert same_image(run(raw)) == {}


def test_flat_black_images_look_alike_and_are_not_told(raw):
    for patient in (A, B):
        write_tif(raw / "source" / patient / f"{patient}_1.tif", np.zeros((32, 32, 3), np.uint8))
    assert same_image(run(raw)) == {}
    assert with_arrays(raw) == [A, B]


def test_the_same_slice_in_two_batches_counts_once(raw):
    write_patient(raw / "later" / A)
    table = run(raw)
    assert list(table[table.patient == A].slice) == [1, 2, 3]
    assert with_arrays(raw) == [A, B]


def test_a_slice_with_other_content_in_a_later_batch_is_a_conflict_and_the_earlier_stays(raw):
    write_patient(raw / "later" / A)
    write_tif(raw / "later" / A / f"{A}_2.tif", image(A, 99))
    table = run(raw)
    assert list(table[table.patient == A].slice) == [1, 2, 3, 2]
    assert list(table[table.patient == A].conflict.fillna("")) == [
        "", "", "", f"other content than source/{A}/{A}_2.tif"
    ]  # fmt: skip
    assert with_arrays(raw) == [A, B]
    scan = arrays.open_scan(raw.parent / "scans", A)
    assert np.array_equal(scan.images[1], image(A, 2))


def test_a_mended_patient_of_a_later_batch_takes_the_place_of_a_broken_one(raw):
    broken = raw / "source" / A / f"{A}_2.tif"
    broken.write_bytes(b"no tif")
    write_patient(raw / "later" / A)
    table = run(raw)
    assert list(table[table.patient == A].slice) == [1, 2, 3]
    assert table.unreadable.isna().all()
    assert table.conflict.isna().all()
    assert with_arrays(raw) == [A, B]


def test_batches_count_in_the_order_in_which_they_arrived(raw):
    for name, hour, seed in (("a-last", "12", 7), ("z-first", "09", 8)):
        write_patient(raw / name / "NEW_AX_1")
        write_tif(raw / name / "NEW_AX_1" / "NEW_AX_1_2.tif", image("NEW_AX_1", seed))
        batches.write_note(raw / name, batches.Note(f"2026-01-01T{hour}:00:00", "x"))
    run(raw)
    scan = arrays.open_scan(raw.parent / "scans", "NEW_AX_1")
    assert np.array_equal(scan.images[1], image("NEW_AX_1", 8))


def test_slices_from_two_batches_are_one_scan(raw):
    write_patient(raw / "later" / A, numbers=(4, 5))
    run(raw)
    assert len(arrays.open_scan(raw.parent / "scans", A).images) == 5


def test_what_is_no_tif_is_left_out(raw):
    (raw / "source" / "data.csv").write_text("Patient\n")
    (raw / "source" / A / "notes.txt").write_text("nothing")
    assert len(run(raw)) == 6


def test_two_processes_give_the_same_bytes_as_one(raw):
    run(raw, workers=1)
    alone = content(raw.parent)
    run(raw_elsewhere := write_again(raw), workers=2)
    assert content(raw_elsewhere.parent) == alone


def test_a_second_run_over_the_first_gives_the_same_bytes(raw):
    run(raw)
    first = content(raw.parent)
    run(raw)
    assert content(raw.parent) == first


@pytest.fixture
def kept(tmp_path_factory) -> Path:
    """Where the stage keeps what it read: not there before the first run."""
    return tmp_path_factory.mktemp("local") / "ingest"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The patients whose files are decoded, as it happens."""
    names: list[str] = []
    read = scan_files.read

    def watched(patient, *args, **options):
        names.append(patient)
        return read(patient, *args, **options)

    monkeypatch.setattr(scan_files, "read", watched)
    return names


def made(raw: Path) -> dict[str, bytes]:
    """What the stage leaves for others: the manifest and all arrays."""
    return {name: it for name, it in content(raw.parent).items() if not name.startswith("raw/")}


def built_at_once(raw: Path) -> dict[str, bytes]:
    """What a first run over the same files makes, with nothing kept."""
    again = raw.parents[1] / f"{raw.parent.name}_at_once" / "raw"
    shutil.rmtree(again.parent, ignore_errors=True)
    shutil.copytree(raw, again)
    run(again)
    return made(again)


def test_one_more_patient_is_the_only_one_decoded_and_all_bytes_are_as_built_at_once(
    raw, kept, decoded
):
    run(raw, kept=kept)
    assert decoded == [A, B]
    write_patient(raw / "later" / C)
    run(raw, kept=kept)
    assert decoded == [A, B, C]
    assert made(raw) == built_at_once(raw)


def test_a_patient_who_goes_leaves_nothing_behind(raw, kept, decoded):
    run(raw, kept=kept)
    shutil.rmtree(raw / "source" / A)
    run(raw, kept=kept)
    assert decoded == [A, B]
    assert with_arrays(raw) == [B]
    assert sorted(path.name for path in kept.iterdir()) == [B]
    assert made(raw) == built_at_once(raw)


def broken(raw: Path) -> None:
    (raw / "source" / A / f"{A}_2.tif").write_bytes(b"no tif")


def other_pixels(raw: Path) -> None:
    write_tif(raw / "source" / A / f"{A}_2.tif", image(A, 99))


def one_more_slice(raw: Path) -> None:
    write_patient(raw / "later" / A, numbers=(4,))


def one_file_less(raw: Path) -> None:
    (raw / "source" / A / f"{A}_2_mask.tif").unlink()


def another_batch(raw: Path) -> None:
    (raw / "later").mkdir()
    (raw / "source" / A).rename(raw / "later" / A)


def a_conflict(raw: Path) -> None:
    write_patient(raw / "later" / A, numbers=(1, 2))
    write_tif(raw / "later" / A / f"{A}_2.tif", image(A, 99))


@pytest.mark.parametrize(
    "change", [broken, other_pixels, one_more_slice, one_file_less, another_batch, a_conflict]
)
def test_a_patient_whose_files_changed_is_read_anew_alone_and_then_kept(raw, kept, decoded, change):
    run(raw, kept=kept)
    change(raw)
    decoded.clear()
    run(raw, kept=kept)
    assert set(decoded) == {A}
    assert made(raw) == built_at_once(raw)
    decoded.clear()
    run(raw, kept=kept)
    assert decoded == []
    assert made(raw) == built_at_once(raw)


def test_batches_in_another_order_are_read_anew(raw, kept):
    for name, hour, seed in (("one", "09", 7), ("two", "12", 8)):
        write_patient(raw / name / C)
        write_tif(raw / name / C / f"{C}_2.tif", image(C, seed))
        batches.write_note(raw / name, batches.Note(f"2026-01-01T{hour}:00:00", "x"))
    run(raw, kept=kept)
    batches.write_note(raw / "one", batches.Note("2026-01-01T15:00:00", "x"))
    run(raw, kept=kept)
    assert made(raw) == built_at_once(raw)
    assert np.array_equal(arrays.open_scan(raw.parent / "scans", C).images[1], image(C, 8))


def test_other_code_or_another_plane_reads_everyone_anew(raw, kept, decoded, monkeypatch):
    run(raw, kept=kept)
    monkeypatch.setattr(ingest, "LIBRARIES", ())
    run(raw, kept=kept)
    assert decoded == [A, B] * 2
    wanted = parameters(validate={"height_px": 64})
    ingest.run(wanted, raw=raw, scans=raw.parent / "s", manifest=raw.parent / "m.csv", kept=kept)
    assert decoded == [A, B] * 3


def test_kept_arrays_that_are_linked_elsewhere_are_replaced_and_not_written_through(raw, kept):
    run(raw, kept=kept)
    linked = raw.parents[1] / f"{raw.parent.name}_linked.npy"
    linked.hardlink_to(kept / A / "images.npy")
    linked.chmod(0o444)
    before = linked.read_bytes()
    other_pixels(raw)
    run(raw, kept=kept)
    assert linked.read_bytes() == before
    assert np.array_equal(arrays.open_scan(raw.parent / "scans", A).images[1], image(A, 99))


def test_two_processes_keep_and_take_the_same(raw, kept):
    run(raw, kept=kept, workers=2)
    first = made(raw)
    run(raw, kept=kept, workers=2)
    assert made(raw) == first == built_at_once(raw)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(GliaflowError, match=r"raw holds no scans; run `dvc repro fetch`"):
        run(tmp_path / "raw")


def write_again(raw: Path) -> Path:
    again = raw.parents[1] / f"{raw.parent.name}_again" / "raw"
    for patient in (A, B):
        write_patient(again / "source" / patient)
    return again
