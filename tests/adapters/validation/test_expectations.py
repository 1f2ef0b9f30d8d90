"""The suites on manifests made by hand; tests/stages/test_validate.py starts from image files."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.adapters.scans.patient_files import COLUMNS
from pipeline.adapters.validation import expectations
from pipeline.adapters.validation.expectations import Finding, Suites
from pipeline.errors import GliaflowError

A, B = "TCGA_CS_1", "TCGA_DU_2"
GOOD_SET = {"patients": 12, "quarantined_share": 0.1, "tumour_slices": 20}
NOT_NULL = "ExpectColumnValuesToNotBeNull"


def row(patient: str, number: int, **facts: Any) -> dict[str, Any]:
    """Return the row of a valid slice of 32 x 32 pixels, with changes."""
    name = f"source/{patient}/{patient}_{number}"
    valid = {
        "patient": patient, "site": "CS", "slice": number, "file": f"{name}.tif",
        "mask_file": f"{name}_mask.tif", "height": 32, "width": 32, "channels": 3,
        "dtype": "uint8", "mask_height": 32, "mask_width": 32, "mask_channels": 1,
        "mask_dtype": "uint8", "mask_values": "0 255", "tumour_pixels": 5,
    }  # fmt: skip
    return dict.fromkeys(COLUMNS) | valid | facts


def manifest(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([*rows] or [row(A, 1), row(A, 2), row(B, 1)])


def check_rows(table: pd.DataFrame, docs: Path) -> list[Finding]:
    return expectations.check_rows(table, height_px=32, width_px=32, suites=Suites(docs))


def check_data_set(docs: Path, **facts: float) -> list[str]:
    return expectations.check_data_set(
        GOOD_SET | facts, min_patients=10, max_quarantined=0.2, suites=Suites(docs)
    )


def test_a_valid_manifest_has_no_findings(tmp_path):
    assert check_rows(manifest(), tmp_path) == []


def test_findings_are_ordered_by_rule_then_by_row(tmp_path):
    table = manifest(
        row(A, 1, mask_values="0 128"),
        row(A, 2, dtype="uint16", mask_values="0 1"),
        row(B, 1, dtype="float32"),
    )
    findings = check_rows(table, tmp_path)
    assert [(finding.patient, finding.rule, finding.found) for finding in findings] == [
        (A, "type", "uint16"),
        (B, "type", "float32"),
        (A, "mask values", "0 128"),
        (A, "mask values", "0 1"),
    ]


def test_height_and_width_are_not_swapped(tmp_path):
    table = manifest(row(A, 1, height=16, mask_height=16), row(A, 2, width=16, mask_width=16))
    (finding,) = expectations.check_rows(table, height_px=16, width_px=32, suites=Suites(tmp_path))
    assert finding == Finding(A, "shape", f"source/{A}/{A}_2.tif", "32x16x3", "16x32x3")


@pytest.mark.parametrize("values", ["0", "255", "0 255"])
def test_masks_with_equal_values_in_all_rows_are_valid(tmp_path, values):
    table = manifest(row(A, 1, mask_values=values), row(A, 2, mask_values=values))
    assert check_rows(table, tmp_path) == []


EXPECTED_AREA = "tumour on at most half of the slice; check that the mask is not inverted"


@pytest.mark.parametrize(
    ("tumour_pixels", "found"),
    [
        (1024, "100 % of the slice"),
        (1000, "97.7 % of the slice"),  # 97.66
        (513, "50.1 % of the slice"),  # 50.098
    ],
)
def test_a_mask_that_marks_more_than_half_of_a_slice_is_a_finding(tmp_path, tumour_pixels, found):
    table = manifest(row(A, 1), row(A, 2, tumour_pixels=tumour_pixels))
    assert check_rows(table, tmp_path) == [
        Finding(A, "mask area", f"source/{A}/{A}_2_mask.tif", found, EXPECTED_AREA)
    ]


def test_a_mask_that_marks_half_of_a_slice_is_valid(tmp_path):
    assert check_rows(manifest(row(A, 1, tumour_pixels=512)), tmp_path) == []


def test_the_area_of_a_mask_of_three_channels_is_not_judged(tmp_path):
    table = manifest(row(A, 1), row(A, 2, mask_channels=3, tumour_pixels=3 * 200))
    assert [finding.rule for finding in check_rows(table, tmp_path)] == ["mask size"]


def test_a_slice_without_mask_has_no_area(tmp_path):
    missing = {"mask_file": None, "mask_height": None, "mask_width": None, "tumour_pixels": None}
    findings = check_rows(manifest(row(A, 1), row(A, 2, **missing)), tmp_path)
    assert [finding.rule for finding in findings] == ["image without mask"]


def test_a_copy_of_an_image_names_the_patient_and_file_that_came_before(tmp_path):
    earlier = f"{A} (source/{A}/{A}_1.tif)"
    (finding,) = check_rows(manifest(row(A, 1), row(B, 1, same_image_as=earlier)), tmp_path)
    assert (finding.patient, finding.rule, finding.found) == (B, "same image", earlier)
    assert "remove one of the copies" in finding.expected


def test_an_unreadable_mask_without_image_is_reported_with_the_file_of_the_mask(tmp_path):
    table = manifest(row(A, 1), row(A, 2, file=None, unreadable="mask: the file is empty"))
    findings = check_rows(table, tmp_path)
    assert [(finding.rule, finding.file) for finding in findings] == [
        ("unreadable", f"source/{A}/{A}_2_mask.tif"),
        ("mask without image", f"source/{A}/{A}_2_mask.tif"),
    ]


def test_a_fit_data_set_gives_no_message(tmp_path):
    assert check_data_set(tmp_path) == []


@pytest.mark.parametrize("facts", [{"patients": 10}, {"quarantined_share": 0.2}])
def test_a_data_set_at_its_limits_gives_no_message(tmp_path, facts):
    assert check_data_set(tmp_path, **facts) == []


@pytest.mark.parametrize(
    ("facts", "start"),
    [
        ({"patients": 9}, "9 patients are fit to use; expected at least 10"),
        ({"quarantined_share": 0.25}, "25% of the patients are in quarantine; allowed: 20%"),
        ({"tumour_slices": 0}, "no accepted slice has tumour"),
    ],
)
def test_an_unfit_data_set_gives_a_message_with_number_and_limit(tmp_path, facts, start):
    (message,) = check_data_set(tmp_path, **facts)
    assert message.startswith(start)


@pytest.mark.parametrize("column", ["unreadable", "mask_values", "same_image_as"])
def test_a_manifest_without_a_column_is_an_error_and_not_valid(tmp_path, column):
    with pytest.raises(GliaflowError, match=r"could not be evaluated: .*this says nothing"):
        check_rows(manifest().drop(columns=column), tmp_path)


def test_a_rule_on_a_column_that_does_not_exist_is_an_error(tmp_path):
    checks = [("odd rule", NOT_NULL, {"column": "nowhere"})]
    with pytest.raises(GliaflowError, match=r"the rule 'odd rule' could not be evaluated"):
        Suites(tmp_path).run("slices", pd.DataFrame({"row": [0], "patient": [A]}), checks)


def test_a_rule_that_works_does_not_hide_one_that_fails(tmp_path):
    checks = [
        ("working rule", NOT_NULL, {"column": "patient"}),
        ("odd rule", NOT_NULL, {"column": "nowhere"}),
    ]
    with pytest.raises(GliaflowError, match=r"'odd rule'"):
        Suites(tmp_path).run("slices", pd.DataFrame({"row": [0], "patient": [A]}), checks)
