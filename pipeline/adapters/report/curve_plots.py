"""Training curves as SVG for the report and as PNG for `dvc plots`."""

import io
import re
from typing import Any

import pandas as pd

_TRAIN, _VALIDATION, _INK = "#b35900", "#0b6bcb", "#20262d"
_THEMED = {_TRAIN: "var(--train)", _VALIDATION: "var(--validation)", _INK: "var(--ink)"}
PANELS = {
    "Loss": {
        "loss": {"label": "train", "color": _TRAIN, "linestyle": "--"},
        "val_loss": {"label": "validation", "color": _VALIDATION},
    },
    "Validation Tversky": {"val_tversky": {"color": _VALIDATION}},
    "Learning rate": {"learning_rate": {"color": _INK, "drawstyle": "steps-mid"}},
}


def curves_png(history: pd.DataFrame) -> bytes:
    """Plot loss, validation Tversky and learning rate by epoch, side by side, as a PNG.

    Args:
        history: as in `html_page.render`; may be empty.
    """
    figure = _figure(history, list(PANELS), inches=(12, 3.4))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()


def curve_svg(history: pd.DataFrame, title: str) -> str:
    """Plot one panel as SVG in the page's font and colours, so that it follows dark mode.

    Args:
        history: as in `html_page.render`.
        title: key of `PANELS`.
    """
    import matplotlib

    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure = _figure(history, [title], inches=(4.4, 3.2))
        figure.savefig(stream, format="svg", transparent=True, metadata=no_metadata)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    # Every panel numbers its parts from 1. Nothing refers to these ids, and ids must be unique.
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
    _plot_networks(axes, history, title)
    if title == "Learning rate":
        _label_rates(axes, sorted({rate for rate in history["learning_rate"] if rate > 0}))
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


def _plot_networks(axes: Any, history: pd.DataFrame, title: str) -> None:
    """Plot a curve per network and a dotted line between networks; label the first alone."""
    for number, rows in enumerate((rows for _, rows in history.groupby("network")), start=1):
        epochs = rows["epoch"]
        for column, style in PANELS[title].items():
            marker = "o" if len(rows) == 1 else None
            labelled = style if number == 1 else style | {"label": None}
            axes.plot(epochs, rows[column], marker=marker, **labelled)
        if number > 1:
            axes.axvline(epochs.min() - 0.5, color=_INK, linestyle=":", linewidth=0.8)


def _label_rates(axes: Any, rates: list[float]) -> None:
    """Make the axis logarithmic, with at most six of the rates in use as its ticks."""
    if rates:
        ticks = rates[:: -(-len(rates) // 6)]
        axes.set_yscale("log")
        axes.set_yticks(ticks, [f"{rate:.2g}" for rate in ticks])
        axes.set_yticks([], minor=True)
