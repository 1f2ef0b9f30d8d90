"""The Great Expectations suites that decide which scans are fit to train on.

Two batches: the manifest, whose broken rules put patients into quarantine, and one row
about the whole data set, whose broken rules stop the run. Pixels are not looked at here:
the manifest holds the facts.
"""

import datetime
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.domain.scans import CONFLICT
from pipeline.errors import GliaflowError

# Data Docs carry no clock: the same manifest gives the same pages.
FIXED_TIME = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class RowRule:
    """A rule on every slice.

    kind, settings: the expectation and its arguments. file, found: columns that say which
    file broke it and what stood there. expected: in words.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    found: str
    expected: str
    file: str = "file"


@dataclass(frozen=True)
class Finding:
    """A slice that broke a rule."""

    patient: str
    rule: str
    file: str
    found: str
    expected: str


def row_rules(*, height_px: int, width_px: int) -> tuple[RowRule, ...]:
    """What every slice and its mask must be, in the order in which findings are listed."""
    shape, mask = f"{height_px}x{width_px}x3", "mask_file"
    empty, present = "ExpectColumnValuesToBeNull", "ExpectColumnValuesToNotBeNull"
    one_of = "ExpectColumnValuesToBeInSet"
    return (
        RowRule("unreadable", empty, {"column": "unreadable"}, "unreadable",
                "an image and a mask that decode", "either_file"),
        RowRule("file name", empty, {"column": "misnamed"}, "misnamed",
                "<patient>_<number>.tif in the folder <patient>"),
        RowRule("mask without image", present, {"column": "file"}, "file",
                "an image beside every mask", mask),
        RowRule("image without mask", present, {"column": mask}, mask,
                "a mask beside every image, empty where there is no tumour"),
        RowRule("shape", one_of, {"column": "shape", "value_set": [shape]}, "shape", shape),
        RowRule("type", one_of, {"column": "dtype", "value_set": ["uint8"]}, "dtype", "uint8"),
        RowRule("mask size", "ExpectColumnPairValuesToBeEqual",
                {"column_A": "mask_shape", "column_B": "plane",
                 "ignore_row_if": "either_value_is_missing"}, "mask_shape",
                "one channel, of the image's height and width", mask),
        RowRule("mask type", one_of, {"column": "mask_dtype", "value_set": ["uint8"]},
                "mask_dtype", "uint8", mask),
        RowRule("mask values", one_of,
                {"column": "mask_values", "value_set": ["0", "255", "0 255"]}, "mask_values",
                "0 and 255 alone", mask),
        RowRule("slice numbers", empty, {"column": "numbering"}, "numbering",
                "every number once, from 1 without gaps"),
        RowRule(CONFLICT, empty, {"column": "conflict"}, "conflict",
                "the bytes that are there already; the earlier scan stays in use"),
        RowRule("same image", empty, {"column": "same_image_as"}, "same_image_as",
                "an image that no other patient holds"),
    )  # fmt: skip


class Suites:
    """Runs suites and keeps their results in one set of Data Docs.

    Args:
        docs: folder that the pages are written to.
    """

    def __init__(self, docs: Path):
        self._docs = docs
        self._context = _context(docs)

    def run(
        self, name: str, frame: pd.DataFrame, checks: list[tuple[str, str, dict[str, Any]]]
    ) -> dict[str, dict[str, Any]]:
        """Validate a frame.

        Args:
            checks: (rule, kind of expectation, its arguments).

        Returns:
            The details of each rule's result, by rule.

        Raises:
            GliaflowError: an expectation could not be evaluated: that is no word about the data.
        """
        checkpoint = _checkpoint(self._context, name, checks)
        outcome = checkpoint.run(batch_parameters={"dataframe": frame}, run_id=_run_id(name))
        make_offline(self._docs)
        (validation,) = outcome.run_results.values()
        return {
            result.expectation_config.meta["rule"]: _evaluated(result)
            for result in validation.results
        }


def check_rows(
    manifest: pd.DataFrame, *, height_px: int, width_px: int, suites: Suites
) -> list[Finding]:
    """Check every slice of the manifest, as ingest wrote it, and list what broke a rule."""
    rules = row_rules(height_px=height_px, width_px=width_px)
    frame = _with_derived(manifest)
    checks = [(rule.name, rule.kind, rule.settings) for rule in rules]
    results = suites.run("slices", frame, checks)
    return [
        _finding(rule, frame.iloc[position])
        for rule in rules
        for position in sorted(
            {int(one["row"]) for one in results[rule.name].get("unexpected_index_list") or []}
        )
    ]


def check_data_set(
    facts: dict[str, float], *, min_patients: int, max_quarantined: float, suites: Suites
) -> list[str]:
    """Check what is left after quarantine; a sentence for every rule that stops the run.

    Args:
        facts: `patients` accepted, `quarantined_share` in [0, 1], `tumour_slices` accepted.
    """
    limits = {
        "patients": {"min_value": min_patients},
        "quarantined_share": {"max_value": max_quarantined},
        "tumour_slices": {"min_value": 1},
    }
    sentences = {
        "patients": f"{facts['patients']:.0f} patients are fit to use; expected at least "
        f"{min_patients} (validate.min_patients)",
        "quarantined_share": f"{100 * facts['quarantined_share']:.3g}% of the patients are in quarantine; "
        f"allowed: {100 * max_quarantined:.3g}% (validate.max_quarantined)",
        "tumour_slices": "no accepted slice has tumour; expected some",
    }
    kind = "ExpectColumnValuesToBeBetween"
    checks = [(name, kind, {"column": name, **limit}) for name, limit in limits.items()]
    results = suites.run("data-set", pd.DataFrame([{**facts, "row": 0}]), checks)
    return [sentences[name] for name in limits if results[name].get("unexpected_count")]


def _finding(rule: RowRule, row: pd.Series) -> Finding:
    return Finding(
        row.patient, rule.name, _text(row[rule.file]), _text(row[rule.found]), rule.expected
    )


def _with_derived(manifest: pd.DataFrame) -> pd.DataFrame:
    """The manifest with sizes as text and a row number, as the rules read it."""
    # Where a column is not there, its own rule must say so.
    nothing = pd.Series(index=manifest.index, dtype=object)
    unreadable, misnamed = (manifest.get(name, nothing) for name in ("unreadable", "misnamed"))
    return manifest.assign(
        row=range(len(manifest)),
        shape=_product(manifest, "height", "width", "channels"),
        plane=_product(manifest, "height", "width").map(lambda text: text and text + "x1"),
        mask_shape=_product(manifest, "mask_height", "mask_width", "mask_channels"),
        either_file=manifest.file.where(
            ~unreadable.fillna("").str.startswith("mask:"), manifest.mask_file
        ),
        # A name that does not fit is told once, not as a missing mask as well.
        mask_file=manifest.mask_file.where(misnamed.isna(), manifest.file),
    )


def _product(table: pd.DataFrame, *columns: str) -> pd.Series:
    """`256x256x3` for each row, None where a number is missing."""
    texts = [
        None if any(pd.isna(value) for value in values) else "x".join(str(int(v)) for v in values)
        for values in zip(*(table[column] for column in columns), strict=True)
    ]
    return pd.Series(texts, index=table.index, dtype=object)


def _checkpoint(context: Any, name: str, checks: list[tuple[str, str, dict[str, Any]]]) -> Any:
    import great_expectations as gx

    batch = (
        context.data_sources.add_pandas(name)
        .add_dataframe_asset(name)
        .add_batch_definition_whole_dataframe("all")
    )
    expectations = [
        getattr(gx.expectations, kind)(**settings, meta={"rule": rule}, notes=rule)
        for rule, kind, settings in checks
    ]
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=batch, suite=suite)
    )
    return context.checkpoints.add(
        gx.Checkpoint(
            name=name,
            validation_definitions=[definition],
            actions=[gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=["local"])],
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": ["row"],
                "include_unexpected_rows": False,
            },
        )
    )


def _run_id(name: str) -> Any:
    from great_expectations.core.run_identifier import RunIdentifier

    return RunIdentifier(run_name=name, run_time=FIXED_TIME)


def _evaluated(result: Any) -> dict[str, Any]:
    details = result.exception_info or {}
    errors = [details] if "raised_exception" in details else list(details.values())
    for error in errors:
        if error.get("raised_exception"):
            raise GliaflowError(
                f"the rule «{result.expectation_config.meta['rule']}» could not be evaluated: "
                f"{' '.join(str(error.get('exception_message')).split())[:300]}; this says "
                "nothing about the data: mend the rule or the manifest's columns"
            )
    return dict(result.result)


def _context(docs: Path) -> Any:
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


STYLE = """<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 } td, th { border: 1px solid #bbb; padding: .3rem .6rem; text-align: left; vertical-align: top }
.badge, .badge-info { background: #e6eef7; border-radius: .3rem; padding: 0 .4rem } ul { padding-left: 1.2rem }
.fa-check-circle::before { content: "passed "; color: #17692e; font-weight: 600; font-style: normal }
.fa-times::before { content: "failed "; color: #a3121f; font-weight: 600; font-style: normal }
.collapse { display: block } .modal, .cooltip .top, button, form, footer, .navbar-brand img { display: none }
</style></head>"""


def make_offline(docs: Path) -> None:
    """Take out of Data Docs all that loads from the network or differs from run to run."""
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


def _text(value: Any) -> str:
    return "nothing" if pd.isna(value) else str(value)
