"""The report: one HTML file that says whether to trust a model, and needs no network.

S slices of H x W pixels, masks are bool. Does not know files, MLflow or the clock: values
in, text out, and the same input gives the same bytes.
"""

import base64
import io
import math
import re
from dataclasses import dataclass
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from pipeline.domain.metrics import dice, overlap
from pipeline.domain.scans import FLAIR
from pipeline.errors import GliaflowError

SLOT_START = "<!-- decision: start -->"
SLOT_END = "<!-- decision: end -->"
HIT, MISSED, INVENTED = "#56b4e9", "#f0e442", "#d55e00"  # apart for every kind of colour blindness
_TRAIN, _VALIDATION, _INK = "#b35900", "#0b6bcb", "#20262d"
_THEMED = {_TRAIN: "var(--train)", _VALIDATION: "var(--validation)", _INK: "var(--ink)"}
_CURVES = {
    "Loss": {
        "loss": {"label": "train", "color": _TRAIN, "linestyle": "--"},
        "val_loss": {"label": "validation", "color": _VALIDATION},
    },
    "Validation Tversky": {"val_tversky": {"color": _VALIDATION}},
    "Learning rate": {"learning_rate": {"color": _INK, "drawstyle": "steps-mid"}},
}


@dataclass(frozen=True)
class Slice:
    """A slice to look at.

    image: (H, W, 3) uint8, pre, FLAIR, post, as bright as it is to be shown.
    truth, predicted: (H, W) bool, True is tumour.
    """

    number: int
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class Pictured:
    """A patient to look at, and why: `worst`, `median` or `best`.

    dice, tversky: in [0, 1], over all slices of the scan, not only the pictured ones.
    """

    patient: str
    why: str
    dice: float
    tversky: float
    slices: list[Slice]


def render(
    *,
    metrics: dict,
    patients: pd.DataFrame,
    history: pd.DataFrame,
    quarantine: pd.DataFrame,
    pictured: list[Pictured],
    counts: dict,
    settings: dict,
    folds: list[dict] | None = None,
) -> str:
    """The whole page, with a slot for the decision that `with_decision` fills.

    Args:
        metrics: as in metrics.json; what is absent, null or NaN reads as not measured.
        patients: as in patients.csv, one row a patient, scores in [0, 1].
        history: one row an epoch: network (counted from 1), epoch (counted on over networks), loss,
            val_loss, val_tversky, learning_rate.
        quarantine: one row a broken rule; may be empty.
        pictured: in any order; the page shows the lowest Tversky first.
        counts: {"patients" | "slices" | "tumour_slices": {split: number}}.
        settings: shown as they are; `unit: slice` and `source: phantom` put a warning above
            the scores.
        folds: of a cross-validation, a row each: fold, patients, slices, scores, epochs. The
            page is then about them: a patient's split is its fold, and there is no slot.

    Returns:
        HTML that asks the network for nothing.
    """
    best = history.dropna(subset=["val_tversky"]).sort_values(
        "val_tversky", ascending=False, kind="stable"
    )
    worst_first = sorted(pictured, key=lambda one: (math.isnan(one.tversky), one.tversky))
    return _template().render(
        slot_start=Markup(SLOT_START),
        slot_end=Markup(SLOT_END),
        metrics=metrics,
        patients=patients.sort_values(["tversky", "patient"]).to_dict("records"),
        curves=[Markup(_curve_svg(history, title)) for title in _CURVES] if len(history) else [],
        best=best[:1].to_dict("records"),
        networks=history["network"].nunique(),
        quarantine=quarantine.to_dict("records"),
        pictured=[vars(one) | {"slices": [*map(_slice, one.slices)]} for one in worst_first],
        places={one.patient: place for place, one in enumerate(worst_first, start=1)},
        counts=counts,
        settings=settings,
        folds=folds,
        colours={"hit": HIT, "missed": MISSED, "invented": INVENTED},
    )


def with_decision(page: str, decision: dict, leakage: dict | None = None) -> str:
    """The same page with a decision in its slot, in place of an earlier one.

    Args:
        decision: as in decision.json.
        leakage: as in leakage.json, where the recipe was measured both ways.

    Raises:
        GliaflowError: the page has no slot.
    """
    before, start, rest = page.partition(SLOT_START)
    _, end, after = rest.partition(SLOT_END)
    if not start or not end:
        raise GliaflowError(
            "the report page has no slot for a decision, expected a page that the stage report "
            "wrote; run `dvc repro report` to build it again"
        )
    template = _template()
    filled = template.blocks["decision"](
        template.new_context({"decision": decision, "leakage": leakage})
    )
    return before + start + "".join(filled) + end + after


def curves_png(history: pd.DataFrame) -> bytes:
    """Loss, validation Tversky and learning rate by epoch, side by side, as a PNG.

    Args:
        history: as in `render`; may be empty.
    """
    figure = _figure(history, list(_CURVES), inches=(12, 3.4))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()


def _curve_svg(history: pd.DataFrame, title: str) -> str:
    """One panel as SVG in the page's own font and colours, so that it follows dark mode."""
    import matplotlib

    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure = _figure(history, [title], inches=(4.4, 3.2))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    # Every panel numbers its parts from 1; nothing refers to these, and a page wants each id once.
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg)
    for colour, variable in _THEMED.items():
        svg = svg.replace(colour, variable)
    return svg


def _figure(history: pd.DataFrame, titles: list[str], *, inches: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    panels = figure.subplots(1, len(titles), squeeze=False)[0]
    for axes, title in zip(panels, titles, strict=True):
        _draw(axes, history, title)
    return figure


def _draw(axes: Any, history: pd.DataFrame, title: str) -> None:
    for network, own in history.groupby("network"):
        epochs = own["epoch"]
        for column, look in _CURVES[title].items():
            marker = "o" if len(own) == 1 else None
            named = look if network == 1 else look | {"label": None}
            axes.plot(epochs, own[column], marker=marker, **named)
        if network > 1:
            axes.axvline(epochs.min() - 0.5, color=_INK, linestyle=":", linewidth=0.8)
    if title == "Learning rate":
        _name_rates(axes, sorted({rate for rate in history["learning_rate"] if rate > 0}))
    else:
        axes.set_ylim(0, 1 if title == "Validation Tversky" else None)
    if title == "Loss" and len(history):
        axes.legend(frameon=False, labelcolor=_INK)
    axes.set_title(title, color=_INK, fontsize=11)
    axes.set_xlabel("epoch", color=_INK)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)


def _name_rates(axes: Any, rates: list[float]) -> None:
    """A logarithmic axis whose ticks are the rates that were used, six at most."""
    if rates:
        shown = rates[:: -(-len(rates) // 6)]
        axes.set_yscale("log")
        axes.set_yticks(shown, [f"{rate:.2g}" for rate in shown])
        axes.set_yticks([], minor=True)


def _slice(one: Slice) -> dict:
    """What the page shows of a slice. Masks are PNG, exact; the scan below them is lossy WebP."""
    found = overlap(one.truth, one.predicted)
    return {
        "number": one.number,
        "found": found,
        "dice": dice(found),
        "flair": _data_uri(one.image[..., FLAIR], "webp"),
        "truth": _data_uri(_spotlight(one.truth), "png"),
        "predicted": _data_uri(_spotlight(one.predicted), "png"),
        "both": _data_uri(_judged(one.truth, one.predicted), "png"),
    }


def _spotlight(mask: np.ndarray) -> np.ndarray:
    """A layer (H, W, 4) that darkens all but the mask, with a white line just outside of it."""
    import cv2

    grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    layer = np.zeros((*mask.shape, 4), np.uint8)
    layer[~mask] = (0, 0, 0, 120)
    layer[grown & ~mask] = (255, 255, 255, 255)
    return layer


def _judged(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """A layer (H, W, 4), blue first, that colours hit, missed and invented pixels."""
    looks = ("#000000", 0), (MISSED, 205), (INVENTED, 205), (HIT, 130)
    table = [(*bytes.fromhex(colour[1:])[::-1], opacity) for colour, opacity in looks]
    return np.array(table, np.uint8)[truth.astype(np.uint8) + 2 * predicted.astype(np.uint8)]


def _data_uri(pixels: np.ndarray, form: str) -> str:
    """Args: pixels: (H, W) grey or (H, W, 4) blue first, uint8; form: `webp` or `png`."""
    import cv2

    options = [cv2.IMWRITE_WEBP_QUALITY, 85] if form == "webp" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    done, buffer = cv2.imencode(f".{form}", pixels, options)
    assert done
    return f"data:image/{form};base64,{base64.b64encode(buffer).decode('ascii')}"


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
        "place": lambda value: f"{100 * min(max(value, 0), 1):.2f}%",
        "text": _text,
    }
    return environment.get_template("page.html")


def _known(value: object) -> bool:
    """Whether a value is a number that can be shown: not None, not NaN, not absent."""
    return isinstance(value, Real) and math.isfinite(value)


def _text(value: object, absent: str = "–") -> str:
    """Any value in words; None, NaN, what is not there and empty text are `absent`."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or absent
    is_nan = isinstance(value, float) and math.isnan(value)
    return absent if value is None or is_nan else str(value) or absent
