import numpy as np
import pytest

from pipeline.domain.scans import (
    SliceName,
    covers_too_much,
    doubled,
    file_name,
    image_facts,
    is_flat,
    mask_facts,
    missing_sequences,
    name_fault,
    numbering_fault,
    parse_name,
    site_of,
    tumour_share,
)


def image(*, pre: list[int], flair: list[int], post: list[int]) -> np.ndarray:
    """One row of pixels, three sequences: (1, W, 3) uint8."""
    return np.stack([pre, flair, post], axis=-1).astype(np.uint8)[None]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "TCGA_DU_5849_19950405_12_mask.tif",
            SliceName("TCGA_DU_5849_19950405", 12, is_mask=True),
        ),
        ("TCGA_DU_5849_19950405_12.tif", SliceName("TCGA_DU_5849_19950405", 12, is_mask=False)),
        ("A_007.tiff", SliceName("A", 7, is_mask=False)),
        ("A_0.TIF", SliceName("A", 0, is_mask=False)),
    ],
)
def test_a_file_name_gives_patient_number_and_kind(name, expected):
    assert parse_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        "README.md",
        "A.tif",
        "A_.tif",
        "A_x.tif",
        "_1.tif",
        "A_1.png",
        "A_1.tif.txt",
        "A_mask.tif",
    ],
)
def test_other_file_names_are_not_parsed(name):
    assert parse_name(name) is None


@pytest.mark.parametrize("is_mask", [True, False])
def test_a_generated_file_name_parses_back(is_mask):
    name = file_name("TCGA_DU_5849_19950405", 12, is_mask=is_mask)
    assert parse_name(name) == SliceName("TCGA_DU_5849_19950405", 12, is_mask)


@pytest.mark.parametrize(
    ("patient", "site"),
    [("TCGA_DU_5849_19950405", "DU"), ("A_B", "B"), ("alone", "?"), ("", "?")],
)
def test_the_site_is_the_second_part_of_the_name(patient, site):
    assert site_of(patient) == site


@pytest.mark.parametrize("name", ["TCGA_DU_5849_1.tif", "März 3.tif", "", "x" * 200, "日本_1.tif"])
def test_names_that_can_be_used_have_no_fault(name):
    assert name_fault(name) == ""


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("P_\udcff.tif", "its name is not valid UTF-8"),
        ("P\n_1.tif", "its name holds control characters"),
        ("P\x1b[31m_1.tif", "its name holds control characters"),
        ("P\u2028_1.tif", "its name holds control characters"),
        ("x" * 201, "its name has 201 bytes, allowed are 200"),
        ("ä" * 101, "its name has 202 bytes, allowed are 200"),
    ],
)
def test_names_that_cannot_be_used_have_a_fault(name, fault):
    assert name_fault(name) == fault


@pytest.mark.parametrize(
    ("tumour_pixels", "share", "is_too_much"),
    [(0, 0, False), (50, 0.5, False), (51, 0.51, True), (100, 1, True)],
)
def test_a_mask_may_mark_half_of_a_slice_of_a_hundred_pixels(tumour_pixels, share, is_too_much):
    assert tumour_share(tumour_pixels, height=10, width=10) == share
    assert covers_too_much(tumour_pixels, height=10, width=10) == is_too_much


def test_a_mask_of_an_empty_slice_marks_nothing():
    assert tumour_share(0, height=0, width=10) == 0


def test_image_facts_are_size_type_and_the_mean_of_each_sequence():
    facts = image_facts(image(pre=[0, 1, 1], flair=[10, 20, 30], post=[255, 255, 255]))
    assert facts == {
        "height": 1,
        "width": 3,
        "channels": 3,
        "dtype": "uint8",
        "pre_mean": 0.6667,  # 2 / 3
        "flair_mean": 20.0,
        "post_mean": 255.0,
        "blank": "",
        "missing": "",
    }


@pytest.mark.parametrize(
    ("pixels", "channels", "dtype"),
    [
        (np.zeros((4, 5), np.uint8), 1, "uint8"),
        (np.zeros((4, 5, 4), np.uint8), 4, "uint8"),
        (np.zeros((4, 5, 3), np.uint16), 3, "uint16"),
    ],
)
def test_an_image_of_another_shape_or_type_has_only_these_facts(pixels, channels, dtype):
    assert image_facts(pixels) == {"height": 4, "width": 5, "channels": channels, "dtype": dtype}


def test_channels_that_are_all_zero_are_blank():
    facts = image_facts(image(pre=[0, 0], flair=[1, 2], post=[0, 0]))
    assert facts["blank"] == "pre post"
    assert facts["missing"] == ""


@pytest.mark.parametrize(
    ("pre", "post", "missing"),
    [([1, 2], [3, 4], "pre"), ([3, 4], [1, 2], "post"), ([1, 2], [1, 2], "pre post")],
)
def test_a_copy_of_flair_is_a_missing_sequence(pre, post, missing):
    assert image_facts(image(pre=pre, flair=[1, 2], post=post))["missing"] == missing


def test_a_black_slice_is_blank_and_has_no_missing_sequence():
    facts = image_facts(image(pre=[0, 0], flair=[0, 0], post=[0, 0]))
    assert facts["blank"] == "pre flair post"
    assert facts["missing"] == ""


def test_mask_facts_count_tumour_pixels():
    mask = np.array([[0, 255, 255], [0, 0, 1]], np.uint8)
    assert mask_facts(mask) == {
        "mask_height": 2,
        "mask_width": 3,
        "mask_channels": 1,
        "mask_dtype": "uint8",
        "mask_values": "0 1 255",
        "tumour_pixels": 3,
    }


def test_an_empty_mask_has_no_tumour_pixel_and_one_value():
    facts = mask_facts(np.zeros((2, 2), np.uint8))
    assert (facts["tumour_pixels"], facts["mask_values"]) == (0, "0")


def test_a_full_mask_counts_every_pixel():
    facts = mask_facts(np.full((2, 2), 255, np.uint8))
    assert (facts["tumour_pixels"], facts["mask_values"]) == (4, "255")


def test_a_colour_mask_has_three_channels():
    assert mask_facts(np.zeros((2, 2, 3), np.uint8))["mask_channels"] == 3


@pytest.mark.parametrize(
    ("count", "shown"), [(6, "0 1 2 3 4 5"), (7, "0 1 2 3 4 5 ..."), (256, "0 1 2 3 4 5 ...")]
)
def test_at_most_six_values_of_a_mask_are_listed(count, shown):
    assert mask_facts(np.arange(count, dtype=np.uint8)[None])["mask_values"] == shown


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([], []), ([1, 2, 3], []), ([2, 1, 2], [2]), ([9, 3, 9, 3, 9], [3, 9])],
)
def test_duplicate_numbers_are_reported_once_and_in_order(numbers, expected):
    assert doubled(numbers) == expected


@pytest.mark.parametrize("numbers", [[], [0], [1], [1, 2, 3], [0, 1, 2], [3, 1, 2]])
def test_numbers_without_gaps_from_zero_or_one_are_valid(numbers):
    assert numbering_fault(numbers) == ""


@pytest.mark.parametrize(
    ("numbers", "fault"),
    [
        ([1, 3], "slice 2 not there"),
        ([0, 2], "slice 1 not there"),
        ([2, 3], "slice 1 not there"),
        ([1, 7], "slice 2, 3, 4, 5, 6 not there"),
        ([1, 8], "slice 2, 3, 4, 5, 6 ... not there"),
        ([1, 2, 2], "slice 2 twice"),
        ([1, 4, 4], "slice 4 twice"),
    ],
)
def test_gaps_and_duplicates_are_reported_duplicates_first(numbers, fault):
    assert numbering_fault(numbers) == fault


def test_an_image_with_a_single_value_is_flat():
    assert is_flat(np.full((2, 2, 3), 7, np.uint8))
    assert is_flat(np.zeros((2, 2, 3), np.uint8))


def test_an_image_with_a_single_different_pixel_is_not_flat():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[1, 1, 2] = 1
    assert not is_flat(pixels)


@pytest.mark.parametrize(
    ("per_slice", "expected"),
    [
        ([], ""),
        (["", "", ""], ""),
        (["post", "post", ""], "post"),
        (["post", ""], ""),  # half is not more than half
        (["pre post", "post", "post pre"], "pre post"),
        (["pre", "post", ""], ""),
    ],
)
def test_a_sequence_is_missing_where_more_than_half_of_the_slices_copy_flair(per_slice, expected):
    assert missing_sequences(per_slice) == expected
