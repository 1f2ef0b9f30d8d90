"""Scores and decisions in words, for the terminal and for Prefect's pages."""

from typing import Any


def metrics_rows(scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows for a table: split, score, mean, interval, how many."""
    return [
        {
            "split": split,
            "score": score,
            "mean": round(found["mean"], 4),
            "low": round(found["low"], 4),
            "high": round(found["high"], 4),
            "count": found.get("patients", found.get("slices")),
        }
        for split in ("test", "validation")
        for score, found in scores.get(split, {}).items()
    ]


def decision_text(decision: dict[str, Any]) -> str:
    """A decision in Markdown."""
    candidate = decision["candidate"]["version"]
    lines = [f"## {headline(decision)}", ""]
    lines += [
        f"- {'passed' if reason['passed'] else '**failed**'}: {reason['sentence']}"
        for reason in decision["reasons"]
    ]
    lines += ["", f"Version {candidate}, digest `{decision['candidate']['digest'][:12]}`."]
    return "\n".join(lines)


def headline(decision: dict[str, Any]) -> str:
    """The verdict in one line."""
    candidate, champion = decision["candidate"]["version"], decision["champion"]
    in_use = f"in use: version {champion['after']}" if champion["after"] else "none is in use"
    return {
        "promote": f"Promoted: version {candidate} is the champion.",
        "reject": f"Rejected: version {candidate} is not put into use; {in_use}.",
        "inconclusive": f"Inconclusive: version {candidate} waits for a person; {in_use}.",
    }[decision["verdict"]]
