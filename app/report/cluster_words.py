"""The sentences and numbers of a cluster study, one wording for every face."""

from __future__ import annotations

from typing import Any

from sim import units

VERDICTS = {
    "stable": "Stable: the cluster keeps up with what is asked of it.",
    "backlogged": "Backlogged: the cluster keeps up, but with little to spare; waits grow fast from here on.",
    "overloaded": "Overloaded: more is asked than the cluster can carry under this policy; the queue keeps growing.",
}


def verdict_words(document: dict[str, Any]) -> str:
    """The verdict, with the load and where it turns."""
    verdict = document["verdict"]
    return (
        f"{VERDICTS[verdict['word']]} Jobs ask for {verdict['offered_frac']:.0%} of the device-time; "
        f"under this policy and placement the queue turns at {verdict['turns_frac']:.0%}."
    )


def value_words(value: float, unit: str) -> str:
    """One number in its unit."""
    if unit == "s":
        return units.format_seconds(value) if value >= 0 else f"-{units.format_seconds(-value)}"
    if unit == "share":
        return f"{value:.1%}"
    text = f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{text} {unit}".strip()


def answer_words(row: dict[str, Any]) -> str:
    """``12 min (11 min to 13 min)``."""
    low = max(row["low"], 0.0)
    if row["high"] == row["low"]:
        return value_words(row["mean"], row["unit"])
    said = (value_words(v, row["unit"]) for v in (row["mean"], low, row["high"]))
    return "{} ({} to {})".format(*said)


def sureness_words(document: dict[str, Any]) -> str:
    """How many replications, and what is not sure enough."""
    missed = document["not_converged"]
    said = f"Means and 95 % intervals of {document['replications']} replications."
    if missed:
        names = ", ".join(row["words"] for row in document["answers"] if row["name"] in missed)
        said += f" Not converged to the precision asked: {names}."
    return said
