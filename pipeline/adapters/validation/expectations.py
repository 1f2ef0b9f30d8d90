"""The Great Expectations suites that decide which scans are fit to train on.

There are two suites. One checks every row of the manifest; a broken rule puts the patient
into quarantine. The other checks one row about the whole data set; a broken rule stops the
run. Pixels are not read here: the manifest holds the facts.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.adapters.validation import data_docs
from pipeline.domain import scans
from pipeline.domain.scans import CONFLICT
from pipeline.errors import GliaflowError

# Name of a rule, class of its expectation in Great Expectations, and that class's arguments.
Check = tuple[str, str, dict[str, Any]]


@dataclass(frozen=True)
class RowRule:
    """A rule that every slice must meet.

    expectation, arguments: class in Great Expectations, and its arguments. found_column,
    file_column: columns with what was found, and in which file. expected: in words.
    """

    name: str
    expectation: str
    arguments: dict[str, Any]
    found_column: str
    expected: str
    file_column: str = "file"


@dataclass(frozen=True)
class Finding:
    """A slice that breaks a rule: one row of quarantine.csv."""

    patient: str
    rule: str
    file: str
    found: str
    expected: str


def row_rules(*, height_px: int, width_px: int) -> tuple[RowRule, ...]:
    """Return the rules on a slice and its mask, in the order in which findings are listed.

    Args:
        height_px, width_px: expected size of every slice.
    """
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
        RowRule("mask area", empty, {"column": "mask_area"}, "mask_area",
                "tumour on at most half of the slice; check that the mask is not inverted", mask),
        RowRule("slice numbers", empty, {"column": "numbering"}, "numbering",
                "every number once, from 1 without gaps"),
        RowRule(CONFLICT, empty, {"column": "conflict"}, "conflict",
                "the bytes that are there already; the earlier scan stays in use"),
        RowRule("same image", empty, {"column": "same_image_as"}, "same_image_as",
                "an image that no other patient holds; remove one of the copies"),
    )  # fmt: skip


class Suites:
    """Runs suites and writes their results to one set of Data Docs.

    Args:
        docs: folder that the pages are written to.
    """

    def __init__(self, docs: Path):
        self._docs = docs
        self._context = data_docs.open_context(docs)

    def run(self, name: str, frame: pd.DataFrame, checks: list[Check]) -> dict[str, dict[str, Any]]:
        """Validate a frame and update the Data Docs.

        Args:
            name: of the suite.
            frame: with the column `row`, which findings refer to.

        Returns:
            The details of each rule's result, by rule.

        Raises:
            GliaflowError: an expectation could not be evaluated, which says nothing about
                the data.
        """
        checkpoint = _checkpoint(self._context, name, checks)
        outcome = checkpoint.run(
            batch_parameters={"dataframe": frame}, run_id=data_docs.run_id(name)
        )
        data_docs.make_offline(self._docs)
        (validation,) = outcome.run_results.values()
        return {
            result.expectation_config.meta["rule"]: _details(result)
            for result in validation.results
        }


def check_rows(
    manifest: pd.DataFrame, *, height_px: int, width_px: int, suites: Suites
) -> list[Finding]:
    """Check every slice of the manifest.

    Args:
        manifest: as the stage `ingest` wrote it.
        height_px, width_px: expected size of every slice.

    Returns:
        Findings, ordered by rule, then by row of the manifest.
    """
    rules = row_rules(height_px=height_px, width_px=width_px)
    frame = _with_derived_columns(manifest)
    checks = [(rule.name, rule.expectation, rule.arguments) for rule in rules]
    results = suites.run("slices", frame, checks)
    return [
        _finding(rule, frame.iloc[position])
        for rule in rules
        for position in _unexpected_rows(results[rule.name])
    ]


def check_data_set(
    facts: dict[str, float], *, min_patients: int, max_quarantined: float, suites: Suites
) -> list[str]:
    """Check the data set without the patients in quarantine.

    Args:
        facts: `patients` accepted, `quarantined_share` in [0, 1], `tumour_slices` accepted.
        min_patients: accepted patients that are needed at least.
        max_quarantined: share of patients, in [0, 1], that may be in quarantine at most.

    Returns:
        An error message for every broken rule; empty if the data set is fit.
    """
    limits: dict[str, dict[str, float]] = {
        "patients": {"min_value": min_patients},
        "quarantined_share": {"max_value": max_quarantined},
        "tumour_slices": {"min_value": 1},
    }
    messages = {
        "patients": f"{facts['patients']:.0f} patients are fit to use; expected at least "
        f"{min_patients} (validate.min_patients)",
        "quarantined_share": f"{100 * facts['quarantined_share']:.3g}% of the patients are in quarantine; "
        f"allowed: {100 * max_quarantined:.3g}% (validate.max_quarantined)",
        "tumour_slices": "no accepted slice has tumour; expected some",
    }
    expectation = "ExpectColumnValuesToBeBetween"
    checks = [(name, expectation, {"column": name, **limit}) for name, limit in limits.items()]
    results = suites.run("data-set", pd.DataFrame([{**facts, "row": 0}]), checks)
    return [messages[name] for name in limits if results[name].get("unexpected_count")]


def _unexpected_rows(details: dict[str, Any]) -> list[int]:
    """Return the values of `row` where a rule is broken, sorted."""
    return sorted({int(index["row"]) for index in details.get("unexpected_index_list") or []})


def _finding(rule: RowRule, row: pd.Series) -> Finding:
    return Finding(
        patient=row.patient,
        rule=rule.name,
        file=_text(row[rule.file_column]),
        found=_text(row[rule.found_column]),
        expected=rule.expected,
    )


def _is_fault_of_mask(unreadable: Any) -> bool:
    return isinstance(unreadable, str) and unreadable.startswith("mask:")


def _with_derived_columns(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the manifest with the columns that only the rules need, such as sizes as text."""
    # If a column is missing, the rule that reads it reports that; so do not fail here.
    empty = pd.Series(index=manifest.index, dtype=object)
    unreadable, misnamed = (manifest.get(name, empty) for name in ("unreadable", "misnamed"))
    return manifest.assign(
        row=range(len(manifest)),
        shape=_product(manifest, "height", "width", "channels"),
        plane=_product(manifest, "height", "width").map(lambda text: text and text + "x1"),
        mask_shape=_product(manifest, "mask_height", "mask_width", "mask_channels"),
        mask_area=_implausible_areas(manifest),
        either_file=manifest.file.where(
            ~unreadable.map(_is_fault_of_mask).astype(bool), manifest.mask_file
        ),
        # A misnamed file is reported once, not as an image without mask as well.
        mask_file=manifest.mask_file.where(misnamed.isna(), manifest.file),
    )


def _implausible_areas(table: pd.DataFrame) -> pd.Series:
    """Return the share of a slice that its mask marks, as text, where it is too large; else None."""
    columns = ["tumour_pixels", "mask_height", "mask_width", "mask_channels"]
    masks = table[columns].itertuples(index=False, name=None)
    return pd.Series([_implausible_area(*mask) for mask in masks], index=table.index, dtype=object)


def _implausible_area(tumour_pixels: Any, height: Any, width: Any, channels: Any) -> str | None:
    # Of a mask with several channels, pixels are counted in each; another rule refuses it.
    if any(map(pd.isna, (tumour_pixels, height, width, channels))) or channels != 1:
        return None
    if not scans.covers_too_much(int(tumour_pixels), height=int(height), width=int(width)):
        return None
    share = scans.tumour_share(int(tumour_pixels), height=int(height), width=int(width))
    # Rounded up: just over half is not 50 %.
    return f"{math.ceil(1000 * share) / 10:g} % of the slice"


def _product(table: pd.DataFrame, *columns: str) -> pd.Series:
    """Return the columns' numbers as text such as `256x256x3`; None where one is missing."""
    sizes = zip(*(table[column] for column in columns), strict=True)
    texts = [
        None if any(map(pd.isna, size)) else "x".join(str(int(number)) for number in size)
        for size in sizes
    ]
    return pd.Series(texts, index=table.index, dtype=object)


def _checkpoint(context: Any, name: str, checks: list[Check]) -> Any:
    import great_expectations as gx

    batch = (
        context.data_sources.add_pandas(name)
        .add_dataframe_asset(name)
        .add_batch_definition_whole_dataframe("all")
    )
    expectations = [
        getattr(gx.expectations, expectation)(**arguments, meta={"rule": rule}, notes=rule)
        for rule, expectation, arguments in checks
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


def _details(result: Any) -> dict[str, Any]:
    """Return the details of one rule's result.

    Raises:
        GliaflowError: the rule could not be evaluated.
    """
    exceptions = result.exception_info or {}
    # Great Expectations gives either one exception or a dict of them.
    errors = [exceptions] if "raised_exception" in exceptions else list(exceptions.values())
    for error in errors:
        if error.get("raised_exception"):
            raise GliaflowError(
                f"the rule '{result.expectation_config.meta['rule']}' could not be evaluated: "
                f"{' '.join(str(error.get('exception_message')).split())[:300]}; this says "
                "nothing about the data: fix the rule or the columns of the manifest"
            )
    return dict(result.result)


def _text(value: Any) -> str:
    return "nothing" if pd.isna(value) else str(value)
