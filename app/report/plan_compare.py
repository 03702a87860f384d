"""Capacity plans side by side, on the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from app.report.console import screen
from app.report.plan_words import usd

WORDS = {
    "option": "the choice",
    "confidence_frac": "confidence",
    "cost_usd": "cost",
    "cost_low_usd": "cost, P10",
    "cost_high_usd": "cost, P90",
    "short_and_late_usd": "short and late, priced",
    "usd_per_useful_hour": "a useful device-hour",
    "regret": "regret",
    "runner_up": "runner-up",
    "too_close": "too close to call",
}


def print_plans(document: dict[str, Any]) -> None:
    """What differs, then figures with their change against the first."""
    console = screen()
    labels = [f"{chr(65 + place)}: {one['name']}" for place, one in enumerate(document["scenarios"])]
    inputs = Table("changed input", *labels, box=None, header_style="dim")
    for row in document["changed"]:
        inputs.add_row(row["path"], *("" if value is None else str(value) for value in row["values"]))
    console.print(inputs if document["changed"] else "no input differs")
    results = Table("result", *labels, box=None, header_style="dim")
    for row in document["figures"]:
        cells = []
        for value, change in zip(row["values"], row["change_frac"], strict=True):
            more = f" ({change:+.1%})" if change and "usd" in row["figure"] else ""
            cells.append(_written(row["figure"], value) + more)
        results.add_row(WORDS[row["figure"]], *cells)
    console.print(results)


def _written(figure: str, value: Any) -> str:
    if value is None:
        return ""
    if "usd" in figure:
        return usd(value)
    if figure == "confidence_frac":
        return f"{value:.0%}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
