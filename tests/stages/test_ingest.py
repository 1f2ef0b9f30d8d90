import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from making import content, image, mask, parameters, write_patient, write_tif

from pipeline.adapters.scans import arrays, batches, patient_files
from pipeline.adapters.storage import csv_files
from pipeline.errors import GliaflowError
from pipeline.stages import ingest

A, B, C, D = "TCGA_CS_1", "TCGA_DU_2", "TCGA_HT_3", "TCGA_FG_4"
# SHA-256 of the manifest of A and B, with the libraries of the lock.
MANIFEST = "6acb8431a0bd782b5939fa343445a899da53f4673121f087177fa9558fa14f50"


@pytest.fixture
def raw(tmp_path) -> Path:
    """Patients A and B from the source, valid."""
    for patient in (A, B):
        write_patient(tmp_path / "raw" / "source" / patient)
    return tmp_path / "raw"


def run(
    raw: Path,
    *,
    workers: int = 1,
    cache: Path | None = None,
    code: str = "code",
    height_px: int = 32,
    keep_outputs: bool = False,
) -> pd.DataFrame:
    """Run the stage as DVC does, with `scans` removed before; return the manifest."""
    if not keep_outputs:
        shutil.rmtree(raw.parent / "scans", ignore_errors=True)
    ingest.run(
        parameters(ingest={"workers": workers}, validate={"height_px": height_px}),
        code=code,
        raw=raw,
        scans=raw.parent / "scans",
        manifest=raw.parent / "manifest.csv",
        cache=cache,
    )
    return csv_files.read_table(raw.parent / "manifest.csv")


def patients_with_arrays(raw: Path) -> list[str]:
    return sorted(path.name for path in (raw.parent / "scans").iterdir())


def held(patient: str, number: int, *, batch: str = "source") -> str:
    """Return a patient and the file of a slice as the manifest names them."""
    return f"{patient} ({batch}/{patient}/{patient}_{number}.tif)"


def same_image(table: pd.DataFrame) -> dict[tuple[str, int], str]:
    rows = table[table.same_image_as.notna()]
    return {(row.patient, row.slice): row.same_image_as for row in rows.itertuples()}


def test_the_manifest_has_a_row_for_every_slice_in_order(raw):
    table = run(raw)
    assert list(zip(table.patient, table.slice, strict=True)) == [
        (A, 1), (A, 2), (A, 3), (B, 1), (B, 2), (B, 3),
    ]  # fmt: skip
    assert list(table.site) == ["CS"] * 3 + ["DU"] * 3
    assert list(table.tumour_pixels) == [0, 5, 5, 0, 5, 5]
    assert list(table.file[:2]) == [f"source/{A}/{A}_1.tif", f"source/{A}/{A}_2.tif"]
    assert table.unreadable.isna().all()


def test_arrays_hold_the_pixels_of_the_files_and_are_memory_mapped(raw):
    run(raw)
    scan = arrays.open_scan(raw.parent / "scans", B)
    assert isinstance(scan.images, np.memmap)
    assert isinstance(scan.masks, np.memmap)
    assert np.array_equal(scan.images, [image(B, number) for number in (1, 2, 3)])
    assert np.array_equal(scan.masks, [mask(pixels) // 255 for pixels in (0, 5, 5)])


def test_slices_are_sorted_by_number_and_not_as_text(raw):
    write_patient(raw / "source" / C, numbers=range(1, 11))
    table = run(raw)
    assert list(table[table.patient == C].slice) == list(range(1, 11))


@pytest.mark.parametrize("name", [f"{A}_2.tif", f"{A}_2_mask.tif"])
def test_a_broken_patient_gets_rows_but_no_arrays_and_does_not_stop_the_others(raw, name):
    (raw / "source" / A / name).write_bytes(b"")
    table = run(raw)
    assert list(table.unreadable.notna()) == [False, True, False, False, False, False]
    assert patients_with_arrays(raw) == [B]


def test_a_missing_fact_is_an_empty_cell_and_whole_numbers_stay_whole(raw):
    (raw / "source" / A / f"{A}_2_mask.tif").unlink()
    run(raw)
    cells = pd.read_csv(raw.parent / "manifest.csv", dtype=str, keep_default_na=False)
    assert list(cells.tumour_pixels) == ["0", "", "5", "0", "5", "5"]
    assert list(cells.mask_height) == ["32", "", "32", "32", "32", "32"]


def test_an_image_under_two_patients_is_reported_for_both(raw):
    write_tif(raw / "source" / B / f"{B}_3.tif", image(A, 2))
    assert same_image(run(raw)) == {(A, 2): held(B, 3), (B, 3): held(A, 2)}


def test_an_image_under_three_patients_is_reported_with_the_other_two(raw):
    for patient in (B, C):
        write_patient(raw / "source" / patient)
        write_tif(raw / "source" / patient / f"{patient}_1.tif", image(A, 1))
    a, b, c = held(A, 1), held(B, 1), held(C, 1)
    assert same_image(run(raw)) == {
        (A, 1): f"{b}, {c}", (B, 1): f"{a}, {c}", (C, 1): f"{a}, {b}"
    }  # fmt: skip


def test_an_image_that_arrives_again_under_another_name_counts_against_the_later_patient(raw):
    for name, hour in (("z-first", "09"), ("a-second", "12")):
        batches.write_note(raw / name, batches.BatchNote(f"2026-01-01T{hour}:00:00", "x"))
    for batch, patient, number in (("z-first", C, 1), ("a-second", D, 2)):
        write_patient(raw / batch / patient)
        write_tif(raw / batch / patient / f"{patient}_{number}.tif", image(A, 2))
    assert same_image(run(raw)) == {
        (C, 1): held(A, 2),
        (D, 2): f"{held(A, 2)}, {held(C, 1, batch='z-first')}",
    }


def test_a_slice_that_joins_a_scan_later_is_compared_by_its_own_batch(raw):
    write_patient(raw / "later" / A, numbers=(4,))
    write_tif(raw / "later" / A / f"{A}_4.tif", image(B, 2))
    assert same_image(run(raw)) == {(A, 4): held(B, 2)}


def test_the_manifest_of_good_data_has_the_bytes_that_it_had(raw):
    run(raw)
    assert hashlib.sha256((raw.parent / "manifest.csv").read_bytes()).hexdigest() == MANIFEST


def test_slices_of_another_size_are_described_and_give_no_arrays(raw):
    write_tif(raw / "source" / A / f"{A}_2.tif", image(A, 2, size_px=64))
    table = run(raw)
    assert list(table.height[:3]) == [32, 64, 32]
    assert patients_with_arrays(raw) == [B]


def test_an_image_twice_under_the_same_patient_is_not_reported(raw):
    write_tif(raw / "source" / A / f"{A}_3.tif", image(A, 2))
    assert same_image(run(raw)) == {}


def test_black_images_that_are_equal_are_not_reported(raw):
    for patient in (A, B):
        write_tif(raw / "source" / patient / f"{patient}_1.tif", np.zeros((32, 32, 3), np.uint8))
    assert same_image(run(raw)) == {}
    assert patients_with_arrays(raw) == [A, B]


def test_the_same_slice_in_two_batches_counts_once(raw):
    write_patient(raw / "later" / A)
    table = run(raw)
    assert list(table[table.patient == A].slice) == [1, 2, 3]
    assert patients_with_arrays(raw) == [A, B]


def test_a_slice_with_other_content_in_a_later_batch_is_a_conflict_and_the_earlier_stays(raw):
    write_patient(raw / "later" / A)
    write_tif(raw / "later" / A / f"{A}_2.tif", image(A, 99))
    table = run(raw)
    assert list(table[table.patient == A].slice) == [1, 2, 3, 2]
    assert list(table[table.patient == A].conflict.fillna("")) == [
        "", "", "", f"other content than source/{A}/{A}_2.tif"
    ]  # fmt: skip
    assert patients_with_arrays(raw) == [A, B]
    scan = arrays.open_scan(raw.parent / "scans", A)
    assert np.array_equal(scan.images[1], image(A, 2))


def test_a_fixed_patient_in_a_later_batch_replaces_the_broken_one(raw):
    broken = raw / "source" / A / f"{A}_2.tif"
    broken.write_bytes(b"no tif")
    write_patient(raw / "later" / A)
    table = run(raw)
    assert list(table[table.patient == A].slice) == [1, 2, 3]
    assert table.unreadable.isna().all()
    assert table.conflict.isna().all()
    assert patients_with_arrays(raw) == [A, B]


def test_batches_count_in_order_of_arrival(raw):
    for name, hour, seed in (("a-last", "12", 7), ("z-first", "09", 8)):
        write_patient(raw / name / "NEW_AX_1")
        write_tif(raw / name / "NEW_AX_1" / "NEW_AX_1_2.tif", image("NEW_AX_1", seed))
        batches.write_note(raw / name, batches.BatchNote(f"2026-01-01T{hour}:00:00", "x"))
    run(raw)
    scan = arrays.open_scan(raw.parent / "scans", "NEW_AX_1")
    assert np.array_equal(scan.images[1], image("NEW_AX_1", 8))


def test_slices_from_two_batches_form_one_scan(raw):
    write_patient(raw / "later" / A, numbers=(4, 5))
    run(raw)
    assert len(arrays.open_scan(raw.parent / "scans", A).images) == 5


def test_files_that_are_no_tif_are_ignored(raw):
    (raw / "source" / "data.csv").write_text("Patient\n")
    (raw / "source" / A / "notes.txt").write_text("nothing")
    assert len(run(raw)) == 6


def test_two_processes_give_the_same_bytes_as_one(raw):
    run(raw, workers=1)
    with_one = content(raw.parent)
    run(elsewhere := write_same_patients(raw), workers=2)
    assert content(elsewhere.parent) == with_one


def test_a_run_over_the_outputs_of_the_first_gives_the_same_bytes(raw):
    run(raw)
    first = content(raw.parent)
    run(raw, keep_outputs=True)
    assert content(raw.parent) == first


@pytest.fixture
def cache(tmp_path_factory) -> Path:
    """The stage's cache; it does not exist before the first run."""
    return tmp_path_factory.mktemp("local") / "ingest"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The patients whose files are decoded, in order."""
    patients: list[str] = []
    original = patient_files.read_patient

    def read_patient(patient, *args, **options):
        patients.append(patient)
        return original(patient, *args, **options)

    monkeypatch.setattr(patient_files, "read_patient", read_patient)
    return patients


def outputs(raw: Path) -> dict[str, bytes]:
    """Return the stage's outputs: the manifest and all arrays."""
    return {name: body for name, body in content(raw.parent).items() if not name.startswith("raw/")}


def outputs_without_cache(raw: Path) -> dict[str, bytes]:
    """Return the outputs of a first run over a copy of the same files."""
    copy = raw.parents[1] / f"{raw.parent.name}_without_cache" / "raw"
    shutil.rmtree(copy.parent, ignore_errors=True)
    shutil.copytree(raw, copy)
    run(copy)
    return outputs(copy)


def test_only_a_new_patient_is_decoded_and_all_bytes_are_as_without_cache(raw, cache, decoded):
    run(raw, cache=cache)
    assert decoded == [A, B]
    write_patient(raw / "later" / C)
    run(raw, cache=cache)
    assert decoded == [A, B, C]
    assert outputs(raw) == outputs_without_cache(raw)


def test_a_removed_patient_leaves_neither_arrays_nor_a_cache_entry(raw, cache, decoded):
    run(raw, cache=cache)
    shutil.rmtree(raw / "source" / A)
    run(raw, cache=cache)
    assert decoded == [A, B]
    assert patients_with_arrays(raw) == [B]
    assert sorted(path.name for path in cache.iterdir()) == [B]
    assert outputs(raw) == outputs_without_cache(raw)


def broken_image(raw: Path) -> None:
    (raw / "source" / A / f"{A}_2.tif").write_bytes(b"no tif")


def other_pixels(raw: Path) -> None:
    write_tif(raw / "source" / A / f"{A}_2.tif", image(A, 99))


def additional_slice(raw: Path) -> None:
    write_patient(raw / "later" / A, numbers=(4,))


def missing_mask(raw: Path) -> None:
    (raw / "source" / A / f"{A}_2_mask.tif").unlink()


def another_batch(raw: Path) -> None:
    (raw / "later").mkdir()
    (raw / "source" / A).rename(raw / "later" / A)


def conflict(raw: Path) -> None:
    write_patient(raw / "later" / A, numbers=(1, 2))
    write_tif(raw / "later" / A / f"{A}_2.tif", image(A, 99))


@pytest.mark.parametrize(
    "change",
    [broken_image, other_pixels, additional_slice, missing_mask, another_batch, conflict],
)
def test_only_a_patient_whose_files_changed_is_decoded_again_and_is_then_cached(
    raw, cache, decoded, change
):
    run(raw, cache=cache)
    change(raw)
    decoded.clear()
    run(raw, cache=cache)
    assert set(decoded) == {A}
    assert outputs(raw) == outputs_without_cache(raw)
    decoded.clear()
    run(raw, cache=cache)
    assert decoded == []
    assert outputs(raw) == outputs_without_cache(raw)


def test_a_patient_whose_batches_change_their_order_is_decoded_again(raw, cache):
    for name, hour, seed in (("one", "09", 7), ("two", "12", 8)):
        write_patient(raw / name / C)
        write_tif(raw / name / C / f"{C}_2.tif", image(C, seed))
        batches.write_note(raw / name, batches.BatchNote(f"2026-01-01T{hour}:00:00", "x"))
    run(raw, cache=cache)
    batches.write_note(raw / "one", batches.BatchNote("2026-01-01T15:00:00", "x"))
    run(raw, cache=cache)
    assert outputs(raw) == outputs_without_cache(raw)
    assert np.array_equal(arrays.open_scan(raw.parent / "scans", C).images[1], image(C, 8))


def test_with_other_code_libraries_or_size_every_patient_is_decoded_again(
    raw, cache, decoded, monkeypatch
):
    run(raw, cache=cache)
    run(raw, cache=cache, code="other code")
    assert decoded == [A, B] * 2
    run(raw, cache=cache, code="other code", height_px=64)
    assert decoded == [A, B] * 3
    monkeypatch.setattr(ingest, "LIBRARIES", ())
    run(raw, cache=cache, code="other code", height_px=64)
    assert decoded == [A, B] * 4
    run(raw, cache=cache, code="other code", height_px=64)
    assert decoded == [A, B] * 4


def test_cached_arrays_that_are_linked_elsewhere_are_replaced_and_not_written_to(raw, cache):
    run(raw, cache=cache)
    linked = raw.parents[1] / f"{raw.parent.name}_linked.npy"
    linked.hardlink_to(cache / A / "images.npy")
    linked.chmod(0o444)
    before = linked.read_bytes()
    other_pixels(raw)
    run(raw, cache=cache)
    assert linked.read_bytes() == before
    assert np.array_equal(arrays.open_scan(raw.parent / "scans", A).images[1], image(A, 99))


def test_two_processes_use_the_same_cache(raw, cache):
    run(raw, cache=cache, workers=2)
    first = outputs(raw)
    run(raw, cache=cache, workers=2)
    assert outputs(raw) == first == outputs_without_cache(raw)


def test_the_printed_line_counts_slices_and_what_came_from_the_cache(raw, cache, capsys):
    run(raw, cache=cache)
    (raw / "source" / A / f"{A}_2.tif").write_bytes(b"")
    capsys.readouterr()
    run(raw, cache=cache)
    assert capsys.readouterr().out == (
        "ingest: 2 patients, 6 slices, 4 with tumour, 1 unreadable; "
        "1 patients decoded, 1 from the cache\n"
    )


def test_a_folder_without_scans_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(GliaflowError, match=r"raw holds no scans; run `dvc repro fetch`"):
        run(tmp_path / "raw")


def write_same_patients(raw: Path) -> Path:
    elsewhere = raw.parents[1] / f"{raw.parent.name}_elsewhere" / "raw"
    for patient in (A, B):
        write_patient(elsewhere / "source" / patient)
    return elsewhere
