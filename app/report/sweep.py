"""A sweep on the terminal: one line a point, and what moves the answer most."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.table import Table

from app.report import figures
from app.report.console import plain_table, screen
from app.report.html import page
from app.report.plan_words import usd
from sim.units import format_bytes, format_count, format_percent, format_seconds

MAX_LINES = 40
"""Points shown; all of them are in the tables that --out writes."""
MAX_REASONS = 8
SHOWN = {
    "option": ("the choice", str),
    "cost_usd": ("cost", usd),
    "short_and_late_usd": ("short and late, priced", usd),
    "regret": ("regret", lambda value: f"{value:.3g}"),
    "step_time_s": ("step time", lambda value: format_seconds(value, 4)),
    "tokens_per_s_per_device": ("tokens/s a device", format_count),
    "mfu_frac": ("MFU", lambda value: format_percent(value, 1)),
    "memory_bytes": ("memory", format_bytes),
    "devices": ("devices", lambda value: f"{value:,}"),
    "run_wall_s": ("run", format_seconds),
}
"""Figures that fit a line: heading and how the value is written."""


def print_sweep(document: dict[str, Any]) -> None:
    """The table of points, then the sensitivities where asked for."""
    console = screen()
    rows = document["rows"]
    console.print(f"[bold]{document['scenario']}[/bold]", markup=True)
    console.print(_points(rows))
    if len(rows) > MAX_LINES:
        console.print(f"the first {MAX_LINES} of {len(rows):,} points; --out writes all of them")
    outcomes = Counter(row["outcome"] for row in rows)
    console.print(", ".join(f"{count:,} {name}" for name, count in outcomes.items()))
    for line in _reasons(rows):
        console.print(line, markup=False, style="dim")
    if "sensitivity" in document:
        console.print(_sensitivity(document["sensitivity"]))


def sweep_report(document: dict[str, Any]) -> str:
    """All points and the sensitivity as one HTML file that opens offline."""
    found = document.get("sensitivity")
    chart = None
    if found and found["inputs"]:
        columns = {"rank_correlation": "rank correlation"}
        if found["kind"] == "sobol-indices":
            columns = {"first_order": "share of the variance, alone", "total": "with interactions"}
        tornado = found["kind"] == "tornado"
        chart = (
            figures.tornado(found["inputs"], found["metric"])
            if tornado
            else figures.shares(found["inputs"], columns)
        )
    return page("sweep.html", chart, document=document)


def _points(rows: list[dict[str, Any]]) -> Table:
    keys = list(rows[0]) if rows else []
    varied = keys[1 : keys.index("outcome")] if rows else []
    shown = [name for name in SHOWN if name in keys]
    short = {path: path.rpartition(".")[2] for path in varied}
    if len(set(short.values())) < len(short):
        short = {path: path for path in varied}
    figures = (*(short[path] for path in varied), *(SHOWN[name][0] for name in shown))
    table = plain_table(*figures, "outcome", text=("outcome",))
    for row in rows[:MAX_LINES]:
        cells = [str(row[path]) for path in varied]
        cells += ["" if row[name] is None else SHOWN[name][1](row[name]) for name in shown]
        table.add_row(*cells, row["outcome"])
    return table


def _reasons(rows: list[dict[str, Any]]) -> list[str]:
    """Why points have no figures or do not fit, each reason once with the first point that has it."""
    first: dict[str, int] = {}
    for row in rows:
        if row["reason"]:
            first.setdefault(row["reason"], row["point"])
    lines = [f"point {number}: {reason}" for reason, number in first.items()]
    return lines[:MAX_REASONS] + (
        [f"... and {len(lines) - MAX_REASONS} more"] if len(lines) > MAX_REASONS else []
    )


def _sensitivity(found: dict[str, Any]) -> Table | str:
    metric = found["metric"]
    if found.get("reason"):
        return f"no Sobol indices: {found['reason']}"
    if found["kind"] == "tornado":
        table = plain_table("input", "low", "high", f"{metric} at low", "at middle", "at high", "swing")
        for bar in found["inputs"]:
            figures = (bar[name] for name in ("at_low", "at_middle", "at_high", "swing"))
            table.add_row(bar["path"], bar["low"], bar["high"], *(_number(value) for value in figures))
        return table
    if found["kind"] == "rank":
        table = plain_table("input", f"rank correlation with {metric}", "p")
        for row in found["inputs"]:
            table.add_row(row["path"], _number(row["rank_correlation"]), _number(row["p_value"]))
        return table
    table = plain_table("input", f"share of the variance of {metric}, alone", "with interactions")
    for row in found["inputs"]:
        alone = f"{row['first_order']:.3f} ± {row['first_order_half_width']:.3f}"
        table.add_row(row["path"], alone, f"{row['total']:.3f} ± {row['total_half_width']:.3f}")
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
