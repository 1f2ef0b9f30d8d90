from pathlib import Path

import pytest
from making import parameters
from scan_sources import CS, KAGGLE_TWICE, SLICES, copy, error_of, make_folder, make_zip

from pipeline.adapters.scans.limits import Limits

LARGE = {f"{CS}/{CS}_1.tif": bytes(2**20 + 1)}


def fill_source(
    kind: str, tmp_path: Path, s3_login, entries: dict[str, bytes]
) -> dict[str, object]:
    """Make a source of some kind; return the arguments that name it."""
    if kind == "bucket":
        name = f"limits-{tmp_path.name.strip('_').replace('_', '-').lower()}"[:60].strip("-")
        s3_login.fill(name, entries)
        return {"source": f"s3://{name}", "endpoint_url": s3_login.url}
    make = make_folder if kind == "folder" else make_zip
    return {"source": make(tmp_path / "given", entries)}


@pytest.mark.parametrize("kind", ["folder", "zip", "bucket"])
@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({"max_file_mib": 1}, f"{CS}/{CS}_1.tif has 1.0 MiB; allowed: 1 (fetch.max_file_mib in "),
        ({"max_patient_files": 1}, f"the patient {CS} has 2 files; allowed: 1 (fetch.max_patient_"),
        ({"max_batch_patients": 1}, " holds 2 patients; allowed: 1 (fetch.max_batch_patients in "),
    ],
)
def test_a_source_over_a_limit_is_refused_with_number_and_key(
    tmp_path, raw, s3_login, kind, limits, found
):
    arguments = fill_source(kind, tmp_path, s3_login, SLICES | LARGE)
    message = error_of(into=raw, **arguments, **limits)
    assert found in message
    assert "nothing was copied" in message


def test_a_source_at_its_limits_is_copied(tmp_path, raw):
    entries = SLICES | {f"{CS}/{CS}_1.tif": bytes(2**20)}
    source = make_folder(tmp_path / "scans", entries)
    limits = {"max_file_mib": 1, "max_patient_files": 2, "max_batch_patients": 2}
    assert copy(source, raw, **limits).files == 4


def test_copies_of_a_file_count_once_against_the_limit_of_files(tmp_path, raw):
    source = make_zip(tmp_path / "lgg.zip", KAGGLE_TWICE)
    assert copy(source, raw, max_patient_files=2).files == 5


def test_a_file_that_is_too_large_is_not_read(tmp_path, raw):
    source = make_folder(tmp_path / "scans", SLICES)
    huge = source / "copy" / CS / f"{CS}_1.tif"
    huge.parent.mkdir(parents=True)
    with huge.open("wb") as stream:
        stream.truncate(2**40)  # takes no space
    assert f"{huge} has 1048576.0 MiB" in error_of(source, raw, max_file_mib=64)


def test_limits_are_those_of_the_parameters():
    limits = Limits.from_params(parameters().fetch)
    assert limits == Limits(
        max_gib=16, max_file_mib=64, max_patient_files=4000, max_batch_patients=10000
    )
