"""Great Expectations itself, on manifests made by hand; whole files: tests/stages/test_validate.py."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from making import content

from pipeline.adapters import expectations
from pipeline.adapters.expectations import Finding, Suites
from pipeline.adapters.scan_files import COLUMNS
from pipeline.errors import GliaflowError

A, B = "TCGA_CS_1", "TCGA_DU_2"
GOOD_SET = {"patients": 12, "quarantined_share": 0.1, "tumour_slices": 20}
NOT_NULL = "ExpectColumnValuesToNotBeNull"


def row(patient: str, number: int, **facts: Any) -> dict[str, Any]:
    """A sound slice of 32 x 32 pixels, with changes."""
    name = f"source/{patient}/{patient}_{number}"
    sound = {
        "patient": patient, "site": "CS", "slice": number, "file": f"{name}.tif",
        "mask_file": f"{name}_mask.tif", "height": 32, "width": 32, "channels": 3,
        "dtype": "uint8", "mask_height": 32, "mask_width": 32, "mask_channels": 1,
        "mask_dtype": "uint8", "mask_values": "0 255", "tumour_pixels": 5,
    }  # fmt: skip
    return dict.fromkeys(COLUMNS) | sound | facts


def manifest(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([*rows] or [row(A, 1), row(A, 2), row(B, 1)])


def check_rows(table: pd.DataFrame, docs: Path) -> list[Finding]:
    return expectations.check_rows(table, height_px=32, width_px=32, suites=Suites(docs))


def check_data_set(docs: Path, **facts: float) -> list[str]:
    return expectations.check_data_set(
        GOOD_SET | facts, min_patients=10, max_quarantined=0.2, suites=Suites(docs)
    )


def test_a_sound_manifest_has_no_findings(tmp_path):
    assert check_rows(manifest(), tmp_path) == []


def test_findings_come_rule_by_rule_and_row_by_row(tmp_path):
    table = manifest(
        row(A, 1, mask_values="0 128"),
        row(A, 2, dtype="uint16", mask_values="0 1"),
        row(B, 1, dtype="float32"),
    )
    told = [(one.patient, one.rule, one.found) for one in check_rows(table, tmp_path)]
    assert told == [
        (A, "type", "uint16"),
        (B, "type", "float32"),
        (A, "mask values", "0 128"),
        (A, "mask values", "0 1"),
    ]


def test_height_and_width_are_not_mixed_up(tmp_path):
    table = manifest(row(A, 1, height=16, mask_height=16), row(A, 2, width=16, mask_width=16))
    found = expectations.check_rows(table, height_px=16, width_px=32, suites=Suites(tmp_path))
    assert [(one.file, one.found, one.expected) for one in found] == [
        (f"source/{A}/{A}_2.tif", "32x16x3", "16x32x3")
    ]


@pytest.mark.parametrize("values", ["0", "255", "0 255"])
def test_masks_that_all_have_the_same_values_are_sound(tmp_path, values):
    table = manifest(row(A, 1, mask_values=values), row(A, 2, mask_values=values))
    assert check_rows(table, tmp_path) == []


def test_a_mask_alone_is_named_where_its_image_is_not_there(tmp_path):
    table = manifest(row(A, 1), row(A, 2, file=None, unreadable="mask: the file is empty"))
    told = [(one.rule, one.file) for one in check_rows(table, tmp_path)]
    assert told == [
        ("unreadable", f"source/{A}/{A}_2_mask.tif"),
        ("mask without image", f"source/{A}/{A}_2_mask.tif"),
    ]


def test_a_good_data_set_gives_no_sentence(tmp_path):
    assert check_data_set(tmp_path) == []


@pytest.mark.parametrize("facts", [{"patients": 10}, {"quarantined_share": 0.2}])
def test_a_data_set_at_its_limits_gives_no_sentence(tmp_path, facts):
    assert check_data_set(tmp_path, **facts) == []


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"patients": 9}, "9 patients are fit to use; expected at least 10"),
        ({"quarantined_share": 0.25}, "25% of the patients are in quarantine; allowed: 20%"),
        ({"tumour_slices": 0}, "no accepted slice has tumour"),
    ],
)
def test_an_unfit_data_set_gives_one_sentence_with_number_and_limit(tmp_path, facts, sentence):
    (told,) = check_data_set(tmp_path, **facts)
    assert told.startswith(sentence)


@pytest.mark.parametrize("column", ["unreadable", "mask_values", "same_image_as"])
def test_a_manifest_without_a_column_is_no_clean_bill(tmp_path, column):
    with pytest.raises(GliaflowError, match=r"could not be evaluated: .*this says nothing"):
        check_rows(manifest().drop(columns=column), tmp_path)


def test_a_rule_on_a_column_that_does_not_exist_is_no_clean_bill(tmp_path):
    checks = [("odd rule", NOT_NULL, {"column": "nowhere"})]
    with pytest.raises(GliaflowError, match=r"the rule «odd rule» could not be evaluated"):
        Suites(tmp_path).run("slices", pd.DataFrame({"row": [0], "patient": [A]}), checks)


def test_a_rule_that_works_does_not_hide_one_that_does_not(tmp_path):
    checks = [
        ("sound rule", NOT_NULL, {"column": "patient"}),
        ("odd rule", NOT_NULL, {"column": "nowhere"}),
    ]
    with pytest.raises(GliaflowError, match=r"«odd rule»"):
        Suites(tmp_path).run("slices", pd.DataFrame({"row": [0], "patient": [A]}), checks)


class Loads(HTMLParser):
    """Collects whatever a browser would load for a page, not what a reader may click on."""

    LOADING = ("src", "srcset", "data", "poster", "background", "action")

    def __init__(self, page: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        wanted = (*self.LOADING, "href") if tag in ("link", "image", "use") else self.LOADING
        self.found += [value for name, value in attributes if name in wanted and value]


def remote(page: str) -> list[str]:
    loaded = [place for place in Loads(page).found if "//" in place and place[:5] != "data:"]
    return loaded + [word for word in page.split() if "url(http" in word or "@import" in word]


@pytest.fixture(scope="module")
def docs(tmp_path_factory) -> Path:
    """Pages of both suites, with findings."""
    return write_docs(tmp_path_factory.mktemp("docs") / "validation")


def write_docs(docs: Path) -> Path:
    suites = Suites(docs)
    table = manifest(row(A, 1), row(B, 1, dtype="uint16"))
    expectations.check_rows(table, height_px=32, width_px=32, suites=suites)
    expectations.check_data_set(GOOD_SET, min_patients=20, max_quarantined=0.2, suites=suites)
    return docs


def test_data_docs_have_an_index_and_pages_for_both_suites(docs):
    pages = [str(path.relative_to(docs)) for path in docs.rglob("*.html")]
    assert "index.html" in pages
    for suite in ("slices", "data-set"):
        assert any(p.startswith("validations") and suite in p for p in pages)
        assert any(p.startswith("expectations") and suite in p for p in pages)


def test_the_index_leads_to_both_results(docs):
    links = Path(docs / "index.html").read_text(encoding="utf-8")
    for path in docs.glob("validations/**/*.html"):
        assert str(path.relative_to(docs)) in links


def test_a_result_page_shows_what_was_found(docs):
    (page,) = (path for path in docs.glob("validations/**/*.html") if "slices" in str(path))
    assert "uint16" in page.read_text(encoding="utf-8")


def test_nothing_in_data_docs_loads_from_the_network(docs):
    pages = list(docs.rglob("*.html"))
    assert len(pages) >= 5
    assert {path.name: remote(path.read_text(encoding="utf-8")) for path in pages} == {
        path.name: [] for path in pages
    }


def test_two_runs_give_identical_pages(docs, tmp_path):
    assert content(write_docs(tmp_path / "validation")) == content(docs)


def test_a_second_run_into_the_same_folder_gives_identical_pages(docs):
    before = content(docs)
    assert content(write_docs(docs)) == before
