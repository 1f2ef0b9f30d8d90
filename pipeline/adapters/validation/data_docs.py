"""Great Expectations Data Docs that open offline and are identical from run to run."""

import datetime
import re
from pathlib import Path
from typing import Any

# Data Docs show the time of the run. It is fixed, so that equal manifests give equal pages.
FIXED_TIME = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)

STYLE = """<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 } td, th { border: 1px solid #bbb; padding: .3rem .6rem; text-align: left; vertical-align: top }
.badge, .badge-info { background: #e6eef7; border-radius: .3rem; padding: 0 .4rem } ul { padding-left: 1.2rem }
.fa-check-circle::before { content: "passed "; color: #17692e; font-weight: 600; font-style: normal }
.fa-times::before { content: "failed "; color: #a3121f; font-weight: 600; font-style: normal }
.collapse { display: block } .modal, .cooltip .top, button, form, footer, .navbar-brand img { display: none }
</style></head>"""


def run_id(name: str) -> Any:
    """Return an identifier for a validation run, with the fixed time."""
    from great_expectations.core.run_identifier import RunIdentifier

    return RunIdentifier(run_name=name, run_time=FIXED_TIME)


def open_context(docs: Path) -> Any:
    """Open a context in memory whose only Data Docs site is a local folder.

    Args:
        docs: folder that the pages are written to.
    """
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    for site in list(context.get_site_names()):
        context.delete_data_docs_site(site)
    context.add_data_docs_site(
        "local",
        {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs.resolve()),
            },
        },
    )
    return context


def make_offline(docs: Path) -> None:
    """Remove from every page what loads from the network or differs from run to run.

    A short style sheet replaces the remote ones. Pages that were cleaned before stay as they are.
    """
    for page in docs.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"<link\b[^>]*\bhttps?://[^>]*>", "", text)
        text = re.sub(r"<script\b[^>]*\bsrc=\"https?://[^>]*>\s*</script>", "", text)
        text = re.sub(r"<img\b[^>]*\bhttps?://[^>]*>", "", text)
        text = re.sub(r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", text)
        text = re.sub(r">(?!20000101T)\d{8}T\d{6}\.\d+Z<", "><", text)
        if STYLE not in text:
            text = text.replace("</head>", STYLE, 1)
        page.write_text(text, encoding="utf-8")
