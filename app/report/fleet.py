"""The calibration report of a fleet: failing nodes first, then every quantity, then every figure; terminal and HTML."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from app.report.console import plain_table, screen
from app.report.html import environment
from sim import units

Row = dict[str, Any]
SHOWN_ON_TERMINAL = 12


def print_fleet(document: Row, console: Console | None = None) -> None:
    """The report for the terminal."""
    out = console or screen()
    nodes, failing = document["nodes"], [row for row in document["nodes"] if not row["passes"]]
    style = "bold red" if failing else "bold"
    out.print(f"[{style}]{headline(document)}[/{style}]", highlight=False)
    for row in failing:
        out.print(f"  [red]{row['node']}[/red]  {'; '.join(row['reasons'])}", highlight=False)
    columns = ("quantity", "figures", "median", "lowest", "on", "of datasheet", "of profile", "marked")
    table = plain_table(*columns, text=("on",), title=f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}")
    for row in document["quantities"][:SHOWN_ON_TERMINAL]:
        table.add_row(*quantity_words(row))
    out.print(table)
    hidden = len(document["quantities"]) - SHOWN_ON_TERMINAL
    if hidden > 0:
        out.print(f"{hidden} more quantities in --json and --html", style="dim", highlight=False)


def headline(document: Row) -> str:
    """One sentence: how many pass."""
    nodes = document["nodes"]
    failing = sum(not row["passes"] for row in nodes)
    if not failing:
        return f"All {len(nodes)} nodes pass." if len(nodes) > 1 else "The node passes."
    return f"{failing} of {len(nodes)} nodes fail{'s' if failing == 1 else ''}."


def quantity_words(row: Row) -> tuple[str, ...]:
    """A quantity's row as text."""
    share, ratio = row["datasheet_frac"], row["profile_ratio"]
    return (
        row["quantity"],
        str(row["count"]),
        figure_words(row["median"], row["unit"]),
        figure_words(row["lowest"], row["unit"]),
        row["lowest_on"],
        "" if share is None else f"{100 * share:.0f} %",
        "" if ratio is None else f"{100 * ratio:.0f} %",
        str(row["marked"] or ""),
    )


def figure_words(value: float, unit: str) -> str:
    """A figure with its unit; reciprocal seconds are told as the time they are of."""
    if unit == "FLOP/s":
        return units.format_flop_per_s(value)
    if unit == "B/s":
        return f"{units.format_bytes(value)}/s"
    if unit == "1/s":
        return units.format_seconds(1 / value)
    return f"{value:.4g} {unit}"


def fleet_html(document: Row) -> str:
    """The report as one HTML file that opens offline."""
    figures = [row | {"words": figure_words(row["value"], row["unit"])} for row in document["figures"]]
    return (
        environment()
        .get_template("fleet.html")
        .render(
            headline=headline(document),
            failing=[row for row in document["nodes"] if not row["passes"]],
            quantities=[quantity_words(row) for row in document["quantities"]],
            marked=[row for row in figures if row["reason"]],
            figures=figures,
        )
    )
