import hashlib
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from making import another_user, image, mask, write_patient, write_tif

from pipeline.adapters.scans import patient_files
from pipeline.adapters.scans.patient_files import COLUMNS, PatientScan
from pipeline.domain.scans import CHANNELS

P = "TCGA_DU_5849"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three valid slices of P, tumour in the second and third."""
    return write_patient(tmp_path / "raw" / "source" / P)


def read(folder: Path, *, needs_masks: bool = True, also: Path | None = None) -> PatientScan:
    paths = [path for batch in (folder, also) if batch for path in batch.iterdir()]
    return patient_files.read_patient(
        folder.name, paths, root=folder.parents[1], needs_masks=needs_masks
    )


def row_of(folder: Path, number: int, **options: bool) -> dict[str, object]:
    (row,) = (row for row in read(folder, **options).rows if row["slice"] == number)
    return row


def slices(patient: PatientScan) -> list[object]:
    return [row["slice"] for row in patient.rows]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def two_by_four(**channels: object) -> np.ndarray:
    """(2, 4, 3) uint8: one value or eight for each channel."""
    pixels = np.zeros((2, 4, 3), np.uint8)
    for name, values in channels.items():
        pixels[..., CHANNELS.index(name)] = np.broadcast_to(np.asarray(values), 8).reshape(2, 4)
    return pixels


def test_every_fact_of_a_small_slice_is_as_worked_out_by_hand(tmp_path):
    folder = tmp_path / "raw" / "batch" / P
    folder.mkdir(parents=True)
    pixels = two_by_four(pre=10, flair=[0, 10, 20, 30, 40, 50, 60, 70], post=0)
    tumour = np.array([[0, 255, 255, 0], [0, 255, 0, 0]], np.uint8)
    write_tif(folder / f"{P}_1.tif", pixels)
    write_tif(folder / f"{P}_1_mask.tif", tumour)
    (row,) = read(folder).rows
    assert row == {
        "patient": P,
        "site": "DU",
        "slice": 1,
        "file": f"batch/{P}/{P}_1.tif",
        "mask_file": f"batch/{P}/{P}_1_mask.tif",
        "sha256": sha256(folder / f"{P}_1.tif"),
        "mask_sha256": sha256(folder / f"{P}_1_mask.tif"),
        "pixels": hashlib.sha256(pixels.tobytes()).hexdigest()[:16],
        "height": 2,
        "width": 4,
        "channels": 3,
        "dtype": "uint8",
        "pre_mean": 10.0,
        "flair_mean": 35.0,
        "post_mean": 0.0,
        "blank": "post",
        "missing": "",
        "mask_height": 2,
        "mask_width": 4,
        "mask_channels": 1,
        "mask_dtype": "uint8",
        "mask_values": "0 255",
        "tumour_pixels": 3,
        "unreadable": None,
        "misnamed": None,
        "numbering": None,
        "same_image_as": None,
        "conflict": None,
    }
    assert tuple(row) == COLUMNS


def test_a_sequence_that_copies_flair_is_missing_and_a_black_one_is_blank(tmp_path):
    folder = tmp_path / "raw" / "batch" / P
    folder.mkdir(parents=True)
    ramp = [0, 10, 20, 30, 40, 50, 60, 70]
    write_tif(folder / f"{P}_1.tif", two_by_four(pre=0, flair=ramp, post=ramp))
    (row,) = read(folder).rows
    assert (row["blank"], row["missing"]) == ("pre", "post")


def test_uniform_images_have_no_pixel_digest_and_others_have_one(folder):
    write_tif(folder / f"{P}_1.tif", np.full((32, 32, 3), 9, np.uint8))
    first, second, _ = read(folder).rows
    assert first["pixels"] == ""
    assert len(second["pixels"]) == 16


def test_slices_are_in_the_order_of_their_numbers(tmp_path):
    folder = write_patient(tmp_path / "raw" / "source" / P, numbers=range(1, 12))
    patient = read(folder)
    assert slices(patient) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert patient.scan is not None
    assert np.array_equal(patient.scan.images[9], image(P, 10))
    assert np.array_equal(patient.scan.images[1], image(P, 2))


def test_a_valid_patient_gets_arrays_of_the_documented_shape_and_type(folder):
    scan = read(folder).scan
    assert scan is not None
    assert (scan.images.shape, scan.images.dtype) == ((3, 32, 32, 3), np.uint8)
    assert (scan.masks.shape, scan.masks.dtype) == ((3, 32, 32), np.uint8)
    assert np.array_equal(scan.images, [image(P, number) for number in (1, 2, 3)])
    assert np.array_equal(scan.masks * 255, [mask(0), mask(5), mask(5)])


def test_numbers_from_zero_are_valid(tmp_path):
    patient = read(write_patient(tmp_path / "raw" / "source" / P, numbers=(0, 1, 2)))
    assert [row["numbering"] for row in patient.rows] == [None, None, None]
    assert patient.scan is not None


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("2.tif", b"no image", "image: it is no TIFF file (it begins with b'no i')"),
        ("2.tif", b"", "image: the file is empty"),
        ("2_mask.tif", b"no image", "mask: it is no TIFF file (it begins with b'no i')"),
        ("2_mask.tif", b"", "mask: the file is empty"),
    ],
)
def test_a_file_that_does_not_decode_is_reported_without_facts(folder, name, body, reason):
    (folder / f"{P}_{name}").write_bytes(body)
    patient, prefix = read(folder), "mask_" if "mask" in name else ""
    assert [row["unreadable"] for row in patient.rows] == [None, reason, None]
    row = patient.rows[1]
    assert row[f"{prefix}height"] is None
    assert row[f"{prefix}sha256"] == hashlib.sha256(body).hexdigest()
    assert patient.scan is None


def test_half_an_image_is_unreadable(folder):
    path = folder / f"{P}_2.tif"
    path.write_bytes(path.read_bytes()[:1500])
    assert row_of(folder, 2)["unreadable"] == "image: its TIFF directory is cut off"


@pytest.mark.parametrize(("kind", "name"), [("image", f"{P}_2.tif"), ("mask", f"{P}_2_mask.tif")])
def test_a_file_that_may_not_be_read_is_unreadable(shared, kind, name):
    folder = write_patient(shared / "raw" / "source" / P)
    (folder / name).chmod(0)
    with another_user():
        assert row_of(folder, 2)["unreadable"] == f"{kind}: may not be read"
        assert read(folder).scan is None


def test_an_image_that_claims_an_absurd_size_is_unreadable(folder):
    path = folder / f"{P}_2.tif"
    width = struct.pack("<HHIHH", 256, 3, 1, 32, 0)  # the tag ImageWidth: 32 pixels
    assert path.read_bytes().count(width) == 1
    two_million = struct.pack("<HHII", 256, 4, 1, 2**21)
    path.write_bytes(path.read_bytes().replace(width, two_million))
    assert row_of(folder, 2)["unreadable"]


def test_a_broken_image_and_a_broken_mask_are_both_reported(folder):
    (folder / f"{P}_2.tif").write_bytes(b"")
    (folder / f"{P}_2_mask.tif").write_bytes(b"no image")
    assert row_of(folder, 2)["unreadable"] == (
        "image: the file is empty; mask: it is no TIFF file (it begins with b'no i')"
    )


def sixteen_bit() -> np.ndarray:
    return image(P, 2).astype(np.uint16) * 256


@pytest.mark.parametrize(
    ("name", "pixels", "facts"),
    [
        ("2.tif", sixteen_bit(), {"height": 32, "channels": 3, "dtype": "uint16"}),
        ("2.tif", image(P, 2)[..., 0], {"height": 32, "channels": 1, "dtype": "uint8"}),
        ("2.tif", image(P, 2, size_px=16), {"height": 16, "channels": 3, "dtype": "uint8"}),
        ("2_mask.tif", mask(5, size_px=16), {"mask_height": 16, "mask_width": 16}),
        ("2_mask.tif", image(P, 9), {"mask_height": 32, "mask_channels": 3}),
    ],
)
def test_an_image_or_mask_of_another_size_or_type_is_described_and_gives_no_arrays(
    folder, name, pixels, facts
):
    write_tif(folder / f"{P}_{name}", pixels)
    patient = read(folder)
    assert facts.items() <= patient.rows[1].items()
    assert patient.rows[1]["unreadable"] is None
    assert patient.scan is None


def test_a_mask_with_another_value_is_described(folder):
    write_tif(folder / f"{P}_2_mask.tif", mask(4) // 255 * 128)
    row = row_of(folder, 2)
    assert (row["mask_values"], row["tumour_pixels"]) == ("0 128", 4)


def test_a_mask_with_many_values_is_described_by_its_first_six(folder):
    write_tif(folder / f"{P}_2_mask.tif", (np.arange(1024) % 8).astype(np.uint8).reshape(32, 32))
    assert row_of(folder, 2)["mask_values"] == "0 1 2 3 4 5 ..."


def test_an_image_without_mask_has_no_mask_facts_and_no_arrays(folder):
    (folder / f"{P}_2_mask.tif").unlink()
    row = row_of(folder, 2)
    assert row["file"] == f"source/{P}/{P}_2.tif"
    assert row["mask_file"] is row["mask_values"] is row["tumour_pixels"] is None
    assert read(folder).scan is None


def test_a_mask_without_image_has_no_image_facts_and_no_arrays(folder):
    (folder / f"{P}_2.tif").unlink()
    row = row_of(folder, 2)
    assert row["mask_file"] == f"source/{P}/{P}_2_mask.tif"
    assert row["file"] is row["height"] is row["pixels"] is None
    assert row["tumour_pixels"] == 5
    assert read(folder).scan is None


def test_a_gap_in_the_numbers_is_reported_once_and_gives_no_arrays(tmp_path):
    patient = read(write_patient(tmp_path / "raw" / "source" / P, numbers=(1, 3)))
    assert slices(patient) == [1, 3]
    assert [row["numbering"] for row in patient.rows] == ["slice 2 not there", None]
    assert patient.scan is None


def test_a_number_written_in_two_ways_is_a_repeated_number(folder):
    write_tif(folder / f"{P}_01.tif", image(P, 99))
    patient = read(folder)
    assert slices(patient) == [1, 1, 2, 3]
    assert {row["file"] for row in patient.rows[:2]} == {
        f"source/{P}/{P}_01.tif",
        f"source/{P}/{P}_1.tif",
    }
    assert patient.rows[0]["numbering"] == "slice 1 twice"
    assert patient.scan is None


def test_a_number_written_in_two_ways_counts_once_if_the_content_is_equal(folder):
    (folder / f"{P}_01.tif").write_bytes((folder / f"{P}_1.tif").read_bytes())
    assert slices(read(folder)) == [1, 2, 3]
    assert read(folder).scan is not None


def test_a_second_mask_is_a_repeated_number(folder):
    write_tif(folder / f"{P}_02_mask.tif", mask(50))
    patient = read(folder)
    assert slices(patient) == [1, 2, 2, 3]
    assert sorted(row["tumour_pixels"] for row in patient.rows[1:3]) == [5, 50]
    assert patient.rows[0]["numbering"] == "slice 2 twice"


@pytest.mark.parametrize("name", ["TCGA_CS_4941_4.tif", "scan.tif", f"{P}_four.tif", f"{P}.tif"])
def test_a_file_name_that_does_not_fit_its_folder_is_reported_and_gives_no_arrays(folder, name):
    write_tif(folder / name, image(P, 4))
    patient = read(folder)
    assert slices(patient) == [1, 2, 3, None]
    assert patient.rows[3]["misnamed"] == name
    assert patient.rows[3]["file"] == f"source/{P}/{name}"
    assert patient.scan is None


def test_misnamed_files_come_last_in_order_of_name(folder):
    for name in ("b.tif", "a.tif"):
        write_tif(folder / name, image(P, 4))
    assert [row["misnamed"] for row in read(folder).rows] == [None, None, None, "a.tif", "b.tif"]


def test_a_slice_in_two_batches_counts_once_if_the_content_is_equal(folder):
    later = write_patient(folder.parents[1] / "later" / P, numbers=(1, 2, 3))
    patient = read(folder, also=later)
    assert slices(patient) == [1, 2, 3]
    assert patient.scan is not None


def test_a_slice_in_two_batches_with_different_content_is_a_repeated_number(folder):
    later = folder.parents[1] / "later" / P
    later.mkdir(parents=True)
    write_tif(later / f"{P}_2.tif", image(P, 99))
    patient = read(folder, also=later)
    assert slices(patient) == [1, 2, 2, 3]
    assert [row["file"] for row in patient.rows[1:3]] == [
        f"later/{P}/{P}_2.tif",
        f"source/{P}/{P}_2.tif",
    ]
    assert patient.rows[0]["numbering"] == "slice 2 twice"
    assert patient.scan is None


def test_a_patient_who_arrives_in_two_batches_is_one_scan(folder):
    later = write_patient(folder.parents[1] / "later" / P, numbers=(4, 5))
    patient = read(folder, also=later)
    assert slices(patient) == [1, 2, 3, 4, 5]
    assert patient.scan is not None
    assert np.array_equal(patient.scan.images[4], image(P, 5))


def test_a_scan_without_masks_is_valid_if_none_are_needed(folder):
    for path in folder.glob("*_mask.tif"):
        path.unlink()
    scan = read(folder, needs_masks=False).scan
    assert scan is not None
    assert np.array_equal(scan.images, [image(P, number) for number in (1, 2, 3)])
    assert scan.masks.shape == (3, 32, 32)
    assert not scan.masks.any()
    assert read(folder).scan is None


def test_without_masks_a_gap_is_valid_and_a_repeated_number_is_not(folder):
    (folder / f"{P}_2.tif").unlink()
    (folder / f"{P}_2_mask.tif").unlink()
    assert read(folder, needs_masks=False).scan is not None
    write_tif(folder / f"{P}_01.tif", image(P, 99))
    assert read(folder, needs_masks=False).scan is None


def test_a_tif_from_another_program_keeps_its_channels(folder):
    path = folder / f"{P}_2.tif"
    assert cv2.imwrite(str(path), image(P, 2)[..., ::-1])  # OpenCV takes blue first; compressed
    scan = read(folder).scan
    assert scan is not None
    assert np.array_equal(scan.images[1], image(P, 2))


def test_an_empty_folder_gives_no_rows_and_no_arrays(tmp_path):
    assert patient_files.read_patient(P, [], root=tmp_path) == PatientScan([], None)


def batch(root: Path, name: str, **slices: np.ndarray) -> list[Path]:
    """Write slices of P, such as `s2=pixels`, and empty masks to a batch; return their paths."""
    folder = root / name / P
    folder.mkdir(parents=True)
    for number, pixels in slices.items():
        write_tif(folder / f"{P}_{number[1:]}.tif", pixels)
        write_tif(folder / f"{P}_{number[1:]}_mask.tif", mask(0))
    return sorted(folder.iterdir())


def merge(root: Path, *versions: list[Path]) -> tuple[set[str], list[tuple[object, object]]]:
    """Return the files to read, and file and reason of every conflict."""
    paths, rows = patient_files.merge_batches(P, list(versions), root=root, plane=(32, 32))
    files = {str(path.relative_to(root)) for path in paths}
    return files, [(row["file"], row["conflict"]) for row in rows]


def files_of(name: str, *numbers: int) -> set[str]:
    return {f"{name}/{P}/{P}_{n}{end}.tif" for n in numbers for end in ("", "_mask")}


def test_a_later_batch_adds_new_slices_and_equal_ones_count_once(tmp_path):
    first = batch(tmp_path, "a", s1=image(P, 1), s2=image(P, 2))
    later = batch(tmp_path, "b", s2=image(P, 2), s3=image(P, 3))
    assert merge(tmp_path, first, later) == (
        files_of("a", 1, 2) | files_of("b", 3),
        [],
    )


def test_a_later_batch_with_other_bytes_is_a_conflict_and_adds_nothing(tmp_path):
    first = batch(tmp_path, "a", s1=image(P, 1), s2=image(P, 2))
    later = batch(tmp_path, "b", s2=image(P, 99), s3=image(P, 3))
    assert merge(tmp_path, first, later) == (
        files_of("a", 1, 2),
        [(f"b/{P}/{P}_2.tif", f"other content than a/{P}/{P}_2.tif")],
    )


@pytest.mark.parametrize("unfit", [image(P, 2, size_px=16), image(P, 2)[..., 0]])
def test_a_later_batch_replaces_an_earlier_one_that_is_not_fit_to_use(tmp_path, unfit):
    first = batch(tmp_path, "a", s1=image(P, 1), s2=unfit)
    later = batch(tmp_path, "b", s2=image(P, 2), s3=image(P, 3))
    assert merge(tmp_path, first, later) == (files_of("b", 2, 3), [])


def test_a_scan_of_another_size_is_not_fit_and_is_replaced(tmp_path):
    first = batch(tmp_path, "a", s1=image(P, 1, size_px=16))
    for path in tmp_path.glob("a/*/*_mask.tif"):
        write_tif(path, mask(0, size_px=16))
    later = batch(tmp_path, "b", s1=image(P, 1))
    assert merge(tmp_path, first, later) == (files_of("b", 1), [])


def test_a_batch_that_replaced_another_is_what_the_next_is_compared_with(tmp_path):
    first = batch(tmp_path, "a", s1=image(P, 1)[..., 0])
    second = batch(tmp_path, "b", s1=image(P, 1))
    third = batch(tmp_path, "c", s1=image(P, 99))
    assert merge(tmp_path, first, second, third) == (
        files_of("b", 1),
        [(f"c/{P}/{P}_1.tif", f"other content than b/{P}/{P}_1.tif")],
    )


@pytest.mark.parametrize("unfit", [mask(1024), mask(513), mask(5).astype(np.uint16)])
def test_a_later_batch_replaces_a_patient_whose_mask_breaks_a_rule(tmp_path, unfit):
    first = batch(tmp_path, "a", s1=image(P, 1), s2=image(P, 2))
    write_tif(tmp_path / "a" / P / f"{P}_2_mask.tif", unfit)
    later = batch(tmp_path, "b", s1=image(P, 1), s2=image(P, 2))
    assert merge(tmp_path, first, later) == (files_of("b", 1, 2), [])


def test_a_later_batch_does_not_replace_a_mask_that_marks_half_of_a_slice(tmp_path):
    first = batch(tmp_path, "a", s1=image(P, 1), s2=image(P, 2))
    write_tif(tmp_path / "a" / P / f"{P}_2_mask.tif", mask(512))
    later = batch(tmp_path, "b", s1=image(P, 1), s2=image(P, 2))
    files, conflicts = merge(tmp_path, first, later)
    assert files == files_of("a", 1, 2)
    assert len(conflicts) == 1


def test_slices_of_another_size_than_asked_for_are_described_and_give_no_arrays(folder):
    paths = list(folder.iterdir())
    root = folder.parents[1]
    other = patient_files.read_patient(P, paths, root=root, plane=(64, 64))
    assert other.scan is None
    assert [row["height"] for row in other.rows] == [32, 32, 32]
    assert patient_files.read_patient(P, paths, root=root, plane=(32, 32)).scan is not None


def test_a_huge_mask_gives_no_arrays_where_masks_are_not_needed(folder):
    write_tif(folder / f"{P}_2_mask.tif", mask(0, size_px=64))
    patient = patient_files.read_patient(
        P, list(folder.iterdir()), root=folder.parents[1], needs_masks=False, plane=(32, 32)
    )
    assert patient.scan is None


def test_a_file_that_is_removed_meanwhile_is_unreadable(folder):
    paths = list(folder.iterdir())
    (folder / f"{P}_2.tif").unlink()
    patient = patient_files.read_patient(P, paths, root=folder.parents[1])
    assert patient.rows[1]["unreadable"] == "image: cannot be read (No such file or directory)"
    assert patient.scan is None


@pytest.mark.parametrize(
    ("image_body", "mask_body", "expected"),
    [
        (b"", None, {"file": "image: the file is empty"}),
        (None, b"", {"mask_file": "mask: the file is empty"}),
        (b"", b"", {"file": "image: the file is empty", "mask_file": "mask: the file is empty"}),
        (None, None, {}),
    ],
)
def test_faults_of_image_and_mask_are_told_apart(folder, image_body, mask_body, expected):
    for name, body in ((f"{P}_2.tif", image_body), (f"{P}_2_mask.tif", mask_body)):
        if body is not None:
            (folder / name).write_bytes(body)
    assert patient_files.unreadable_files(row_of(folder, 2)) == expected


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_slice_cannot_be_read_and_does_not_block(tmp_path):
    folder = write_patient(tmp_path / "P_A_1")
    paths = sorted(folder.iterdir())
    (folder / "P_A_1_2.tif").unlink()
    os.mkfifo(folder / "P_A_1_2.tif")
    read = patient_files.read_patient("P_A_1", paths, root=tmp_path)
    assert read.scan is None
    assert [row["unreadable"] for row in read.rows] == [
        None, "image: cannot be read (not a regular file)", None,
    ]  # fmt: skip
