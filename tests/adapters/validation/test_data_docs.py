from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from making import content

from pipeline.adapters.scans.patient_files import COLUMNS
from pipeline.adapters.validation import data_docs, expectations

REMOTE_PAGE = """<html><head>
<link rel="stylesheet" href="https://example.org/style.css">
<script src="https://example.org/script.js"> </script>
</head><body>
<img src="https://example.org/logo.png"/>
<a href="https://example.org/help">help</a>
<div id="row-0b2e3f7a-1c4d-4e5f-8a9b-0c1d2e3f4a5b">uint16</div>
<td>20260101T090000.123456Z</td><td>20000101T000000.000000Z</td>
</body></html>"""


class LoadedUrls(HTMLParser):
    """Collects what a browser loads for a page, not what a reader may click on."""

    LOADING = ("src", "srcset", "data", "poster", "background", "action")

    def __init__(self, page: str):
        super().__init__()
        self.urls: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        loading = (*self.LOADING, "href") if tag in ("link", "image", "use") else self.LOADING
        self.urls += [value for name, value in attributes if name in loading and value]


def remote_urls(page: str) -> list[str]:
    loaded = [url for url in LoadedUrls(page).urls if "//" in url and not url.startswith("data:")]
    return loaded + [word for word in page.split() if "url(http" in word or "@import" in word]


def write_docs(docs: Path) -> Path:
    """Write the pages of both suites; each has a finding."""
    slices = {
        "patient": ["TCGA_CS_1", "TCGA_DU_2"], "slice": [1, 1], "file": ["1.tif", "2.tif"],
        "mask_file": ["1_mask.tif", "2_mask.tif"], "height": 32, "width": 32, "channels": 3,
        "dtype": ["uint8", "uint16"], "mask_height": 32, "mask_width": 32, "mask_channels": 1,
        "mask_dtype": "uint8", "mask_values": "0 255",
    }  # fmt: skip
    manifest = pd.DataFrame(slices).reindex(columns=COLUMNS)
    facts = {"patients": 12, "quarantined_share": 0.1, "tumour_slices": 20}
    suites = expectations.Suites(docs)
    expectations.check_rows(manifest, height_px=32, width_px=32, suites=suites)
    expectations.check_data_set(facts, min_patients=20, max_quarantined=0.2, suites=suites)
    return docs


@pytest.fixture(scope="module")
def docs(tmp_path_factory) -> Path:
    return write_docs(tmp_path_factory.mktemp("docs") / "validation")


def test_data_docs_have_an_index_and_pages_for_both_suites(docs):
    pages = [str(path.relative_to(docs)) for path in docs.rglob("*.html")]
    assert "index.html" in pages
    for suite in ("slices", "data-set"):
        assert any(page.startswith("validations") and suite in page for page in pages)
        assert any(page.startswith("expectations") and suite in page for page in pages)


def test_the_index_links_to_both_results(docs):
    index = (docs / "index.html").read_text(encoding="utf-8")
    results = list(docs.glob("validations/**/*.html"))
    assert len(results) == 2
    for path in results:
        assert str(path.relative_to(docs)) in index


def test_a_result_page_shows_what_was_found(docs):
    (page,) = (path for path in docs.glob("validations/**/*.html") if "slices" in str(path))
    assert "uint16" in page.read_text(encoding="utf-8")


def test_no_page_loads_anything_from_the_network(docs):
    pages = list(docs.rglob("*.html"))
    assert len(pages) >= 5
    assert {path.name: remote_urls(path.read_text(encoding="utf-8")) for path in pages} == {
        path.name: [] for path in pages
    }


def test_two_runs_give_identical_pages(docs, tmp_path):
    assert content(write_docs(tmp_path / "validation")) == content(docs)


def test_a_second_run_into_the_same_folder_gives_identical_pages(docs):
    before = content(docs)
    assert content(write_docs(docs)) == before


def test_a_run_has_its_name_and_the_fixed_time():
    run_id = data_docs.run_id("slices")
    assert (run_id.run_name, run_id.run_time) == ("slices", data_docs.FIXED_TIME)


@pytest.fixture
def offline(tmp_path) -> str:
    """The page with remote content, after it was cleaned."""
    assert len(remote_urls(REMOTE_PAGE)) == 3
    (tmp_path / "page.html").write_text(REMOTE_PAGE, encoding="utf-8")
    data_docs.make_offline(tmp_path)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_remote_content_is_replaced_by_one_style_sheet_and_links_for_readers_stay(offline):
    assert remote_urls(offline) == []
    assert offline.count(data_docs.STYLE) == 1
    assert '<a href="https://example.org/help">help</a>' in offline


def test_random_ids_and_the_time_of_the_run_are_removed_and_the_fixed_time_stays(offline):
    assert '<div id="row">uint16</div>' in offline
    assert "<td></td><td>20000101T000000.000000Z</td>" in offline


def test_cleaning_a_page_twice_changes_nothing(offline, tmp_path):
    data_docs.make_offline(tmp_path)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == offline
