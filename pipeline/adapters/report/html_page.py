"""The report: one self-contained HTML file that shows how far a model can be trusted.

S slices of H x W pixels, masks are bool. Does not know files, MLflow or the clock: values
in, text out, and the same input gives the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from pipeline.adapters.report import curve_plots, paired_plot, slice_images
from pipeline.errors import GliaflowError

SLOT_START = "<!-- decision: start -->"
SLOT_END = "<!-- decision: end -->"


@dataclass(frozen=True)
class PatientFigure:
    """Slices of a patient for the report.

    why: reason for showing it, such as `worst`, `median` or `best`.
    dice, tversky: in [0, 1], over all slices of the scan, not only those shown.
    """

    patient: str
    why: str
    dice: float
    tversky: float
    slices: list[slice_images.SliceFigure]


def render(
    *,
    metrics: Mapping[str, Any],
    patients: pd.DataFrame,
    history: pd.DataFrame,
    quarantine: pd.DataFrame,
    figures: Sequence[PatientFigure],
    counts: Mapping[str, Mapping[str, int]],
    settings: Mapping[str, Any],
    folds: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """Render the whole page, with a slot for the decision that `with_decision` fills.

    Args:
        metrics: as in metrics.json; absent, null and NaN values are shown as not measured.
        patients: as in patients.csv, one row per patient, scores in [0, 1].
        history: one row per epoch: network (from 1), epoch (numbered through all networks),
            loss, val_loss, val_tversky, learning_rate.
        quarantine: one row per violated rule; may be empty.
        figures: in any order; the page shows the lowest Tversky first.
        counts: {"patients" | "slices" | "tumour_slices": {split: number}}.
        settings: label to value, shown as they are; `unit: slice` and `source: phantom` put a
            warning above the scores.
        folds: of a cross-validation, one row per fold: fold, patients, slices, scores, epochs.
            The page then is about the folds: a patient's split is its fold, and there is no
            slot.

    Returns:
        HTML that loads nothing from the network.
    """
    best = history.dropna(subset=["val_tversky"]).sort_values(
        "val_tversky", ascending=False, kind="stable"
    )
    worst_first = sorted(figures, key=lambda figure: (math.isnan(figure.tversky), figure.tversky))
    return _template().render(
        slot_start=Markup(SLOT_START),
        slot_end=Markup(SLOT_END),
        metrics=metrics,
        patients=patients.sort_values(["tversky", "patient"]).to_dict("records"),
        curves=[Markup(curve_plots.curve_svg(history, title)) for title in curve_plots.PANELS]
        if len(history)
        else [],
        best=best[:1].to_dict("records"),
        networks=history["network"].nunique(),
        quarantine=quarantine.to_dict("records"),
        figures=[
            vars(figure) | {"slices": [*map(slice_images.render_slice, figure.slices)]}
            for figure in worst_first
        ],
        figure_numbers={figure.patient: i for i, figure in enumerate(worst_first, start=1)},
        counts=counts,
        settings=settings,
        folds=folds,
        colours={
            "true_positive": slice_images.TRUE_POSITIVE,
            "false_negative": slice_images.FALSE_NEGATIVE,
            "false_positive": slice_images.FALSE_POSITIVE,
        },
    )


def with_decision(
    page: str,
    decision: Mapping[str, Any],
    leakage: Mapping[str, Any] | None = None,
    champions: Sequence[Mapping[str, Any]] = (),
    pictures: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the page with a decision in its slot, in place of an earlier one.

    Args:
        decision: as in decision.json.
        leakage: as in leakage.json; None: not measured with these training parameters.
        champions: decisions that moved the champion, newest first.
        pictures: slices of the patients that fell most, as data URIs: flair, truth, champion,
            candidate; with patient, slice and both scores.

    Raises:
        GliaflowError: the page has no slot.
    """
    before, start, rest = page.partition(SLOT_START)
    _, end, after = rest.partition(SLOT_END)
    if not start or not end:
        raise GliaflowError(
            "the report page has no slot for a decision; expected a page of the stage `report`: run "
            "`dvc repro report` to build it again"
        )
    template = _template()
    comparison = decision.get("comparison") or {}
    pairs = paired_plot.worst_falls_first(comparison.get("patients", ()))
    context = {
        "decision": decision,
        "leakage": leakage,
        "pairs": pairs,
        "paired_plot": Markup(paired_plot.paired_svg(pairs)),
        "champions": champions,
        "pictures": pictures,
    }
    section = template.blocks["decision"](template.new_context(context))
    return before + start + "".join(section) + end + after


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,  # a split without patients has no scores
    )
    environment.tests["known"] = _known
    environment.filters |= {
        "score": lambda value: f"{value:.3f}" if _known(value) else "–",
        "percent": lambda value: f"{100 * value:.1f}\u00a0%" if _known(value) else "–",
        "amount": lambda value: f"{value:,.0f}".replace(",", "\u202f") if _known(value) else "–",
        "position": lambda value: f"{100 * min(max(value, 0), 1):.2f}%",
        "text": _text,
    }
    return environment.get_template("page.html")


def _known(value: object) -> bool:
    """Whether a value is a finite number: not None, not NaN, not absent."""
    return isinstance(value, Real) and math.isfinite(value)


def _text(value: object, absent: str = "–") -> str:
    """Return any value as text; `absent` for None, NaN, missing values and empty text."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or absent
    is_nan = isinstance(value, float) and math.isnan(value)
    return absent if value is None or is_nan else str(value) or absent
