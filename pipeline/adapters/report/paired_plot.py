"""Plot the scores of two models on the same patients, as SVG for the report.

Values in, text out. Colours are variables of the page's style sheet.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

HEIGHT, TOP, BOTTOM, LEFT = 220, 12, 20, 34
STEP_PX, MIN_WIDTH = 22, 240
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


def worst_falls_first(patients: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the patients with both scores and their difference, largest fall first.

    Args:
        patients: as in decision.json: patient, candidate, champion, groups.
    """
    paired = [
        {**patient, "difference": patient["candidate"] - patient["champion"]}
        for patient in patients
        if patient["champion"] is not None
    ]
    return sorted(paired, key=lambda patient: (patient["difference"], patient["patient"]))


def paired_svg(patients: Sequence[Mapping[str, Any]]) -> str:
    """Return a plot with a line per patient, from the champion's score to the candidate's.

    Args:
        patients: of `worst_falls_first`; plotted from left to right.
    """
    width = max(LEFT + STEP_PX * (len(patients) + 1), MIN_WIDTH)
    grid = "".join(
        f'<line x1="{LEFT}" x2="{width}" y1="{_y(value):.1f}" y2="{_y(value):.1f}" '
        f'stroke="var(--line)"/><text x="{LEFT - 6}" y="{_y(value) + 4:.1f}" text-anchor="end" '
        f'font-size="11" fill="var(--soft)">{value:g}</text>'
        for value in GRID
    )
    marks = "".join(
        _patient(patient, LEFT + STEP_PX * place) for place, patient in enumerate(patients, start=1)
    )
    return (
        f'<svg viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" role="img" '
        f'aria-label="Test Tversky of {len(patients)} patients: champion and candidate, largest '
        f'fall first">{grid}{marks}</svg>'
    )


def _patient(patient: Mapping[str, Any], x: int) -> str:
    before, after = _y(patient["champion"]), _y(patient["candidate"])
    colour = "var(--bad)" if patient["difference"] < 0 else "var(--good)"
    title = (
        f"{escape(patient['patient'])}: {patient['champion']:.3f} to {patient['candidate']:.3f} "
        f"({patient['difference']:+.3f})"
    )
    return (
        f'<g><title>{title}</title><line x1="{x}" x2="{x}" y1="{before:.1f}" y2="{after:.1f}" '
        f'stroke="{colour}" stroke-width="2"/><circle cx="{x}" cy="{before:.1f}" r="4" '
        f'fill="var(--paper)" stroke="var(--soft)" stroke-width="1.5"/><circle cx="{x}" '
        f'cy="{after:.1f}" r="4" fill="{colour}"/></g>'
    )


def _y(score: float) -> float:
    """Return the height of a score in [0, 1], in pixels from the top."""
    return TOP + (1 - score) * (HEIGHT - TOP - BOTTOM)
