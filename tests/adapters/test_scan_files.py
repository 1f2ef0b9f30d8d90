import hashlib
import os
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from making import another_user, image, mask, write_patient, write_tif

from pipeline.adapters import scan_files
from pipeline.adapters.scan_files import COLUMNS, Patient
from pipeline.domain.scans import CHANNELS

P = "TCGA_DU_5849"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three sound slices of P, tumour in the second and third."""
    return write_patient(tmp_path / "raw" / "source" / P)


def read(folder: Path, *, needs_masks: bool = True, also: Path | None = None) -> Patient:
    paths = [path for one in (folder, also) if one for path in one.iterdir()]
    return scan_files.read(folder.name, paths, root=folder.parents[1], needs_masks=needs_masks)


def row_of(folder: Path, number: int, **options: bool) -> dict[str, object]:
    (row,) = (row for row in read(folder, **options).rows if row["slice"] == number)
    return row


def slices(patient: Patient) -> list[object]:
    return [row["slice"] for row in patient.rows]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def drawn(**planes: object) -> np.ndarray:
    """(2, 4, 3) uint8: one value or eight for each channel."""
    pixels = np.zeros((2, 4, 3), np.uint8)
    for name, values in planes.items():
        pixels[..., CHANNELS.index(name)] = np.broadcast_to(np.asarray(values), 8).reshape(2, 4)
    return pixels


def test_every_fact_of_a_drawn_slice_is_as_worked_by_hand(tmp_path):
    folder = tmp_path / "raw" / "batch" / P
    folder.mkdir(parents=True)
    pixels = drawn(pre=10, flair=[0, 10, 20, 30, 40, 50, 60, 70], post=0)
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
    write_tif(folder / f"{P}_1.tif", drawn(pre=0, flair=ramp, post=ramp))
    (row,) = read(folder).rows
    assert (row["blank"], row["missing"]) == ("pre", "post")


def test_flat_images_have_no_fingerprint_and_others_have(folder):
    write_tif(folder / f"{P}_1.tif", np.full((32, 32, 3), 9, np.uint8))
    first, second, _ = read(folder).rows
    assert first["pixels"] == ""
    assert len(second["pixels"]) == 16


def test_slices_come_in_the_order_of_their_numbers(tmp_path):
    folder = write_patient(tmp_path / "raw" / "source" / P, numbers=range(1, 12))
    patient = read(folder)
    assert slices(patient) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert patient.scan is not None
    assert np.array_equal(patient.scan.images[9], image(P, 10))
    assert np.array_equal(patient.scan.images[1], image(P, 2))


def test_a_sound_patient_gets_arrays_in_the_promised_form(folder):
    scan = read(folder).scan
    assert scan is not None
    assert (scan.images.shape, scan.images.dtype) == ((3, 32, 32, 3), np.uint8)
    assert (scan.masks.shape, scan.masks.dtype) == ((3, 32, 32), np.uint8)
    assert np.array_equal(scan.images, [image(P, number) for number in (1, 2, 3)])
    assert np.array_equal(scan.masks * 255, [mask(0), mask(5), mask(5)])


def test_numbers_from_zero_are_sound(tmp_path):
    patient = read(write_patient(tmp_path / "raw" / "source" / P, numbers=(0, 1, 2)))
    assert [row["numbering"] for row in patient.rows] == [None, None, None]
    assert patient.scan is not None


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("2.tif", b"no image", "image: it does not decode as an image"),
        ("2.tif", b"", "image: the file is empty"),
        ("2_mask.tif", b"no image", "mask: it does not decode as an image"),
        ("2_mask.tif", b"", "mask: the file is empty"),
    ],
)
def test_a_file_that_does_not_decode_is_told_and_its_facts_are_blank(folder, name, content, reason):
    (folder / f"{P}_{name}").write_bytes(content)
    patient, of = read(folder), "mask_" if "mask" in name else ""
    assert [row["unreadable"] for row in patient.rows] == [None, reason, None]
    row = patient.rows[1]
    assert row[f"{of}height"] is None
    assert row[f"{of}sha256"] == hashlib.sha256(content).hexdigest()
    assert patient.scan is None


def test_half_an_image_is_unreadable(folder):
    path = folder / f"{P}_2.tif"
    path.write_bytes(path.read_bytes()[:1500])
    assert row_of(folder, 2)["unreadable"] == "image: it does not decode as an image"


@pytest.mark.parametrize(("what", "name"), [("image", f"{P}_2.tif"), ("mask", f"{P}_2_mask.tif")])
def test_a_file_that_may_not_be_read_is_unreadable(shared, what, name):
    folder = write_patient(shared / "raw" / "source" / P)
    (folder / name).chmod(0)
    with another_user():
        assert row_of(folder, 2)["unreadable"] == f"{what}: may not be read"
        assert read(folder).scan is None


def test_an_image_that_claims_an_absurd_size_is_unreadable(folder):
    path = folder / f"{P}_2.tif"
    width = struct.pack("<HHIHH", 256, 3, 1, 32, 0)  # the tag ImageWidth: 32 pixels
    assert path.read_bytes().count(width) == 1
    two_million = struct.pack("<HHII", 256, 4, 1, 2**21)
    path.write_bytes(path.read_bytes().replace(width, two_million))
    assert row_of(folder, 2)["unreadable"]


def test_both_files_broken_are_both_told(folder):
    (folder / f"{P}_2.tif").write_bytes(b"")
    (folder / f"{P}_2_mask.tif").write_bytes(b"no image")
    assert row_of(folder, 2)["unreadable"] == (
        "image: the file is empty; mask: it does not decode as an image"
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
def test_an_image_or_mask_of_another_form_is_described_and_gives_no_arrays(
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


def test_a_mask_with_many_values_is_described_in_short(folder):
    write_tif(folder / f"{P}_2_mask.tif", (np.arange(1024) % 8).astype(np.uint8).reshape(32, 32))
    assert row_of(folder, 2)["mask_values"] == "0 1 2 3 4 5 ..."


def test_an_image_without_mask_has_blank_mask_facts_and_no_arrays(folder):
    (folder / f"{P}_2_mask.tif").unlink()
    row = row_of(folder, 2)
    assert row["file"] == f"source/{P}/{P}_2.tif"
    assert row["mask_file"] is row["mask_values"] is row["tumour_pixels"] is None
    assert read(folder).scan is None


def test_a_mask_without_image_has_blank_image_facts_and_no_arrays(folder):
    (folder / f"{P}_2.tif").unlink()
    row = row_of(folder, 2)
    assert row["mask_file"] == f"source/{P}/{P}_2_mask.tif"
    assert row["file"] is row["height"] is row["pixels"] is None
    assert row["tumour_pixels"] == 5
    assert read(folder).scan is None


def test_a_gap_is_told_once_and_gives_no_arrays(tmp_path):
    patient = read(write_patient(tmp_path / "raw" / "source" / P, numbers=(1, 3)))
    assert slices(patient) == [1, 3]
    assert [row["numbering"] for row in patient.rows] == ["slice 2 not there", None]
    assert patient.scan is None


def test_one_number_written_in_two_ways_is_doubled(folder):
    write_tif(folder / f"{P}_01.tif", image(P, 99))
    patient = read(folder)
    assert slices(patient) == [1, 1, 2, 3]
    assert {row["file"] for row in patient.rows[:2]} == {
        f"source/{P}/{P}_01.tif",
        f"source/{P}/{P}_1.tif",
    }
    assert patient.rows[0]["numbering"] == "slice 1 twice"
    assert patient.scan is None


def test_one_number_written_in_two_ways_counts_once_where_the_content_is_equal(folder):
    (folder / f"{P}_01.tif").write_bytes((folder / f"{P}_1.tif").read_bytes())
    assert slices(read(folder)) == [1, 2, 3]
    assert read(folder).scan is not None


def test_a_doubled_mask_is_a_doubled_number(folder):
    write_tif(folder / f"{P}_02_mask.tif", mask(50))
    patient = read(folder)
    assert slices(patient) == [1, 2, 2, 3]
    assert sorted(row["tumour_pixels"] for row in patient.rows[1:3]) == [5, 50]
    assert patient.rows[0]["numbering"] == "slice 2 twice"


@pytest.mark.parametrize("name", ["TCGA_CS_4941_4.tif", "scan.tif", f"{P}_four.tif", f"{P}.tif"])
def test_a_name_that_does_not_fit_its_folder_is_told_and_gives_no_arrays(folder, name):
    write_tif(folder / name, image(P, 4))
    patient = read(folder)
    assert slices(patient) == [1, 2, 3, None]
    assert patient.rows[3]["misnamed"] == name
    assert patient.rows[3]["file"] == f"source/{P}/{name}"
    assert patient.scan is None


def test_several_misnamed_files_come_last_in_order(folder):
    for name in ("b.tif", "a.tif"):
        write_tif(folder / name, image(P, 4))
    assert [row["misnamed"] for row in read(folder).rows] == [None, None, None, "a.tif", "b.tif"]


def test_a_slice_in_two_batches_counts_once_where_the_content_is_equal(folder):
    later = write_patient(folder.parents[1] / "later" / P, numbers=(1, 2, 3))
    patient = read(folder, also=later)
    assert slices(patient) == [1, 2, 3]
    assert patient.scan is not None


def test_a_slice_in_two_batches_with_different_content_is_doubled(folder):
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


def test_a_scan_without_masks_is_sound_where_none_are_needed(folder):
    for path in folder.glob("*_mask.tif"):
        path.unlink()
    scan = read(folder, needs_masks=False).scan
    assert scan is not None
    assert np.array_equal(scan.images, [image(P, number) for number in (1, 2, 3)])
    assert scan.masks.shape == (3, 32, 32)
    assert not scan.masks.any()
    assert read(folder).scan is None


def test_a_gap_is_sound_where_no_masks_are_needed_and_a_doubled_number_is_not(folder):
    (folder / f"{P}_2.tif").unlink()
    (folder / f"{P}_2_mask.tif").unlink()
    assert read(folder, needs_masks=False).scan is not None
    write_tif(folder / f"{P}_01.tif", image(P, 99))
    assert read(folder, needs_masks=False).scan is None


def test_a_tif_from_another_program_keeps_its_channels(folder):
    path = folder / f"{P}_2.tif"
    assert cv2.imwrite(str(path), image(P, 2)[..., ::-1])  # OpenCV writes blue first, compressed
    scan = read(folder).scan
    assert scan is not None
    assert np.array_equal(scan.images[1], image(P, 2))


def test_an_empty_folder_gives_no_rows_and_no_arrays(tmp_path):
    assert scan_files.read(P, [], root=tmp_path) == Patient([], None)


@pytest.fixture
def made(tmp_path) -> Path:
    """A folder with one array, as a stage leaves it."""
    (tmp_path / "scans" / P).mkdir(parents=True)
    np.save(tmp_path / "scans" / P / "images.npy", image(P, 1))
    return tmp_path / "scans" / P


def test_what_is_kept_is_taken_as_it_was_and_shares_its_bytes_on_disk(tmp_path, folder, made):
    rows = read(folder).rows
    scan_files.keep(tmp_path / "kept", P, "key", rows, arrays=made)
    before = (made / "images.npy").stat()
    shutil.rmtree(made)
    assert scan_files.take(tmp_path / "kept", P, "key", arrays=made) == rows
    after = (made / "images.npy").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in made.iterdir()] == ["images.npy"]


def test_a_patient_without_arrays_is_kept_too_and_leaves_no_folder(tmp_path, folder):
    rows = read(folder).rows
    scan_files.keep(tmp_path / "kept", P, "key", rows, arrays=None)
    assert scan_files.take(tmp_path / "kept", P, "key", arrays=tmp_path / "scans" / P) == rows
    assert not (tmp_path / "scans").exists()


def test_without_links_arrays_are_copied(tmp_path, made, monkeypatch):
    def refused(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refused)
    before = (made / "images.npy").read_bytes()
    scan_files.keep(tmp_path / "kept", P, "key", [], arrays=made)
    shutil.rmtree(made)
    assert scan_files.take(tmp_path / "kept", P, "key", arrays=made) == []
    assert (made / "images.npy").read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1", "{}", '{"key": "key"}', '{"key": "key", "arrays": 3}', "\0"],
)
def test_a_note_that_cannot_be_read_counts_as_none(tmp_path, made, text):
    scan_files.keep(tmp_path / "kept", P, "key", [], arrays=made)
    (tmp_path / "kept" / P / scan_files.NOTE).write_text(text)
    assert scan_files.take(tmp_path / "kept", P, "key", arrays=tmp_path / "again") is None
    assert not (tmp_path / "again").exists()


def test_another_key_counts_as_none(tmp_path, made):
    scan_files.keep(tmp_path / "kept", P, "key", [], arrays=made)
    assert scan_files.take(tmp_path / "kept", P, "other", arrays=tmp_path / "again") is None


def test_a_kept_array_that_was_written_to_counts_as_none(tmp_path, made):
    scan_files.keep(tmp_path / "kept", P, "key", [], arrays=made)
    path = tmp_path / "kept" / P / "images.npy"
    later = path.stat().st_mtime_ns + 1
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(0, later))
    assert scan_files.take(tmp_path / "kept", P, "key", arrays=tmp_path / "again") is None


def test_a_kept_array_that_is_gone_counts_as_none(tmp_path, made):
    scan_files.keep(tmp_path / "kept", P, "key", [], arrays=made)
    (tmp_path / "kept" / P / "images.npy").unlink()
    assert scan_files.take(tmp_path / "kept", P, "key", arrays=tmp_path / "again") is None


def test_what_is_kept_of_others_is_forgotten(tmp_path, made):
    scan_files.forget(tmp_path / "kept", others_than=[P])
    for name in (P, "gone", ".gone.1234"):
        scan_files.keep(tmp_path / "kept", name, "key", [], arrays=made)
    scan_files.forget(tmp_path / "kept", others_than=[P])
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [P]
