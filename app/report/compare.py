"""A comparison on the terminal and as an HTML page: inputs that differ, figures side by side, parts of the step."""

from __future__ import annotations

from typing import Any

from app.report import figures
from app.report.console import plain_table, screen
from app.report.html import page
from sim.units import format_bytes, format_count, format_percent, format_seconds

FIGURES = {
    "step_time_s": ("step time", lambda value: format_seconds(value, 4)),
    "samples_per_s": ("samples/s", format_count),
    "tokens_per_s": ("tokens/s", format_count),
    "tokens_per_s_per_device": ("tokens/s a device", format_count),
    "mfu_frac": ("MFU", lambda value: format_percent(value, 1)),
    "memory_bytes": ("memory of the fullest device", format_bytes),
    "memory_headroom_bytes": (
        "memory to spare",
        lambda value: ("-" if value < 0 else "") + format_bytes(abs(value)),
    ),
    "devices": ("devices", lambda value: f"{value:,}"),
    "device_s_per_step": ("device time of a step", format_seconds),
    "bound_by": ("bound by", str),
    "run_wall_s": ("whole run", format_seconds),
    "goodput_frac": ("goodput", lambda value: format_percent(value, 1)),
}
"""Figures in the order they are shown: words, and how a value is written."""


def letters(count: int) -> list[str]:
    """A, B, C ...: what scenarios side by side are called."""
    return [chr(65 + place) for place in range(count)]


def rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Figures as words: one row a figure, a value and a change for each scenario."""
    known = {row["figure"]: row for row in document["figures"]}
    found = []
    for name, (words, written) in FIGURES.items():
        if name not in known:
            continue
        values = ["" if value is None else written(value) for value in known[name]["values"]]
        changes = [
            "" if change is None or place == 0 else f"{100 * change:+.1f} %"
            for place, change in enumerate(known[name]["change_frac"])
        ]
        found.append({"words": words, "values": values, "changes": changes})
    return found


def difference_words(row: dict[str, Any]) -> str:
    """The difference of a step time to the first scenario's, with its interval, in a sentence."""
    low, high = 100 * (row["ratio_low"] - 1), 100 * (row["ratio_high"] - 1)
    sure = "" if row["surely_different"] else "; it may be none"
    seconds = format_seconds(abs(row["difference_s"]), 3)
    faster = "shorter" if row["difference_s"] < 0 else "longer"
    return f"{seconds} {faster}: {100 * (row['ratio'] - 1):+.1f} % (80 %: {low:+.1f} to {high:+.1f} %{sure})"


def print_comparison(document: dict[str, Any]) -> None:
    """Tables for the terminal."""
    console, names = screen(), [one["name"] for one in document["scenarios"]]
    labels = [f"{letter}: {name}" for letter, name in zip(letters(len(names)), names, strict=True)]
    inputs = plain_table("changed input", *labels)
    for row in document["changed"]:
        inputs.add_row(row["path"], *(("" if value is None else str(value)) for value in row["values"]))
    console.print(inputs if document["changed"] else "no input differs")
    results = plain_table("result", *(column for label in labels for column in (label, "")))
    for row in rows(document):
        cells = [cell for pair in zip(row["values"], row["changes"], strict=True) for cell in pair]
        results.add_row(row["words"], *cells)
    console.print(results)
    for label, row, outcome in zip(labels, document["step_time"], document["outcomes"], strict=True):
        if outcome["outcome"] == "does not fit":
            console.print(f"{label} does not fit: {outcome['reason']}", style="yellow", markup=False)
        if row is not document["step_time"][0]:
            console.print(f"{label}: step {difference_words(row)}", markup=False)


def comparison_report(document: dict[str, Any]) -> str:
    """The comparison as one HTML file that opens offline."""
    told = document["scenarios"]
    names = [f"{letter}: {one['name']}" for letter, one in zip(letters(len(told)), told, strict=True)]
    return page(
        "compare.html",
        figures.parts_side_by_side(names, document["parts"]),
        document=document,
        rows=rows(document),
        differences=[difference_words(row) for row in document["step_time"]],
    )
