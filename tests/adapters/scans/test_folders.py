import os
import subprocess
from pathlib import Path

import pytest
from making import content
from scan_sources import CS, DU, SLICES, copy, make_folder, skipped

from pipeline.adapters.scans.folders import list_folder, walk
from pipeline.errors import GliaflowError


def test_linked_patients_are_copied_and_a_link_back_is_skipped(tmp_path, raw):
    real = make_folder(tmp_path / "store", SLICES)
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for patient in (CS, DU):
        (cohort / patient).symlink_to(real / patient)
    (real / CS / "back").symlink_to(real / CS)
    (cohort / "all").symlink_to(cohort)
    (cohort / "gone").symlink_to(tmp_path / "nowhere")
    copied = copy(cohort, raw)
    assert copied.files == len(SLICES)
    assert content(raw) == SLICES
    assert skipped(copied) == {"gone": "neither a file nor a folder"}


def test_a_folder_that_holds_slices_is_a_single_patient(tmp_path, raw):
    make_folder(tmp_path, SLICES)
    assert copy(tmp_path / CS, raw).files == 2
    assert content(raw) == {name: body for name, body in SLICES.items() if name.startswith(CS)}


@pytest.mark.parametrize("suffix", [".TIF", ".tiff"])
def test_a_folder_that_holds_slices_is_a_patient_with_every_suffix_of_tif(tmp_path, raw, suffix):
    source = make_folder(tmp_path / "P", {f"P_1{suffix}": b"a slice"})
    assert copy(source, raw).files == 1
    assert content(raw) == {f"P/P_1{suffix}": b"a slice"}


def test_a_tif_that_is_no_regular_file_is_named_and_not_opened(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES)
    os.mkfifo(source / DU / f"{DU}_2.tif")
    (source / DU / f"{DU}_3.tif").symlink_to("/dev/zero")
    (source / DU / f"{DU}_4.tif").symlink_to(tmp_path / "nowhere")
    (source / DU / f"{DU}_5.tif").symlink_to(f"{DU}_5.tif")
    copied = copy(source, raw)
    assert content(raw) == SLICES
    assert skipped(copied) == {
        f"{DU}/{DU}_{number}.tif": "not a regular file" for number in (2, 3, 4, 5)
    }


def test_folders_that_link_to_each_other_are_read_once(tmp_path):
    for name in "abcdefghi":
        make_folder(tmp_path / name, {f"{name}_1.tif": b"a slice"})
    for name in "abcdefghi":
        for other in "abcdefghi":
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    listed = [item.path for item in walk(tmp_path) if item.is_file]
    assert listed == [tmp_path / name / f"{name}_1.tif" for name in "abcdefghi"]


def test_a_real_folder_wins_over_links_that_come_before_it(tmp_path, raw):
    source = make_folder(tmp_path / "scans", {f"z/{CS}/{CS}_1.tif": b"a slice"})
    (source / "a").symlink_to(source / "z" / CS)
    copy(source, raw)
    assert content(raw) == {f"{CS}/{CS}_1.tif": b"a slice"}


def test_of_two_links_to_a_patient_the_one_with_its_name_counts(tmp_path, raw):
    store = make_folder(tmp_path / "store", SLICES)
    (tmp_path / "scans").mkdir()
    for name in ("A", CS):
        (tmp_path / "scans" / name).symlink_to(store / CS)
    copy(tmp_path / "scans", raw)
    assert sorted(path.name for path in raw.iterdir()) == [CS]


def test_a_link_to_a_folder_above_the_source_is_not_followed(tmp_path, raw):
    source = make_folder(tmp_path / "all" / "scans", SLICES)
    make_folder(tmp_path / "all" / "others", {"P/P_1.tif": b"of somebody else"})
    (source / "up").symlink_to(tmp_path / "all")
    copy(source, raw)
    assert content(raw) == SLICES


def make_deep(root: Path, *, folders: int) -> Path:
    """Make so many folders in each other, named d, with a patient in the last; return the root."""
    here = os.open(root, os.O_RDONLY)
    for name in [*("d" for _ in range(folders)), "P"]:
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("P_1.tif", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)
    return root


def remove_deep(root: Path) -> None:
    """Remove what `make_deep` made: pytest cannot, since its paths are too long."""
    subprocess.run(["rm", "-rf", str(root)], check=True)


@pytest.mark.parametrize("folders", [31, 1500, 2500])  # 2500: longer than a path can be
def test_folders_that_are_nested_too_deeply_are_skipped_and_named(tmp_path, raw, folders):
    source = make_folder(tmp_path / "scans", SLICES)
    try:
        copied = copy(make_deep(source, folders=folders), raw)
    finally:
        remove_deep(source)
    assert content(raw) == SLICES
    assert list(skipped(copied).values()) == ["nested too deeply"]


def test_a_slice_below_thirty_one_folders_is_copied(tmp_path, raw):
    (tmp_path / "scans").mkdir()
    copied = copy(make_deep(tmp_path / "scans", folders=30), raw)
    assert (copied.files, skipped(copied)) == (1, {})


def test_a_linked_folder_without_scans_is_named(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES)
    (tmp_path / "empty").mkdir()
    (source / "TCGA_X").symlink_to(tmp_path / "empty")
    assert skipped(copy(source, raw)) == {"TCGA_X": "no tif"}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("use", ["read", "fingerprint"])
def test_a_slice_that_a_pipe_replaced_after_the_listing_is_an_error_at_once(tmp_path, use):
    make_folder(tmp_path / CS, {f"{CS}_1.tif": b"a slice"})
    (listed,) = list_folder(tmp_path).files
    replace_by_pipe(tmp_path / CS / f"{CS}_1.tif")
    with pytest.raises(GliaflowError, match=rf"{CS}_1.tif is no longer a regular file"):
        getattr(listed, use)()


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
