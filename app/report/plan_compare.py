"""Capacity plans side by side, on the terminal and as a page: what differs, what comes of it, how sure that is."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from app.report.compare import letters
from app.report.console import plain_table, screen
from app.report.figures import styled
from app.report.html import page
from app.report.plan_figures import BLUE, GREY, MILLION, ORANGE
from app.report.plan_words import confidence_words, spread_count, spread_usd, usd
from sim import units
from sim.spec.quantiles import Quantiles
from sim.units import format_percent

PAIRED = "Differences are taken world by world: both choices meet the same demand, prices and failures."
UNPAIRED = "The scenarios have different seeds, so their worlds are not the same: the intervals are wider than need be."


def choice_words(document: dict[str, Any]) -> list[str]:
    """What is chosen in each scenario, and how surely, a sentence each."""
    known = {row["figure"]: row["values"] for row in document["figures"]}
    said = []
    for place, outcome in enumerate(document["outcomes"]):
        if outcome["outcome"] == "does not fit":
            said.append(f"nothing but doing nothing can be had: {outcome['reason']}")
            continue
        first, next_ = known["option"][place], known["runner_up"][place]
        sure = confidence_words(known["confidence_frac"][place])
        close = f"too close to call against {next_}; first in {sure}" if known["too_close"][place] else sure
        said.append(f"{first} ({close})")
    return said


def rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers as words: a value for each scenario, a difference for each but the first."""
    return [
        {
            "words": row["words"],
            "values": [_spread(value, row["unit"]) for value in row["values"]],
            "differences": [
                "" if found is None else difference_words(found, row["unit"]) for found in row["differences"]
            ],
            "sure": [bool(found and found["sure"]) for found in row["differences"]],
        }
        for row in document["answers"]
    ]


def difference_words(row: dict[str, Any], unit: str) -> str:
    """``-$1.2M (-$1.4M to -$1.0M), less in 83 %``, and whether it may be none."""
    if row["low"] == row["high"] == 0:
        return "none"
    low, mid, high = (_signed(row[key], unit) for key in ("low", "mean", "high"))
    return f"{mid} ({low} to {high}), less in {format_percent(row['less_frac'])}" + (
        "" if row["sure"] else ", may be none"
    )


def _spread(row: dict[str, Any], unit: str) -> str:
    if unit == "USD":
        return spread_usd(row)
    return spread_count(row, unit)


def input_words(value: Any) -> str:
    """An input as people write it: ``4.5``, ``3 (2 - 5)``; empty where it is not given."""
    if isinstance(value, dict) and value.keys() == {"low", "mid", "high"}:
        return str(Quantiles(**value))
    if isinstance(value, dict):  # a section that the other scenario has not
        given = {name: input_words(inner) for name, inner in value.items()}
        return ", ".join(f"{name} {inner}" for name, inner in given.items() if inner)
    return "" if value is None else str(value)


def _signed(value: float, unit: str) -> str:
    sign = "+" if value > 0 else "-" if value < 0 else ""
    return sign + (usd(abs(value)) if unit == "USD" else f"{units.format_count(abs(value))} {unit}")


def print_plans(document: dict[str, Any]) -> None:
    """What differs, what would be chosen, and the figures with their differences."""
    console, names = screen(), letters(len(document["scenarios"]))
    for letter, one, words in zip(names, document["scenarios"], choice_words(document), strict=True):
        console.print(f"{letter}: {one['name']}: {words}", markup=False)
    inputs = plain_table("changed input", *names)
    for row in document["changed"]:
        inputs.add_row(row["path"], *map(input_words, row["values"]))
    console.print(inputs if document["changed"] else "no input differs")
    results = plain_table("over the plan (P50, P10 to P90)", *names)
    apart = plain_table("on average (95 % interval)", *(f"{name} - A" for name in names[1:]))
    for row in rows(document):
        results.add_row(row["words"], *row["values"])
        apart.add_row(row["words"], *row["differences"][1:])
    console.print(results)
    console.print(apart)
    console.print(PAIRED if document["paired"] else UNPAIRED, style="dim")


def costs(document: dict[str, Any]) -> go.Figure:
    """One bar a scenario: cost, and what is short and late; whiskers from P10 to P90 of both."""
    figure, names = go.Figure(), letters(len(document["scenarios"]))[::-1]
    known = {row["name"]: row["values"][::-1] for row in document["answers"]}
    for name, words, colour in (
        ("cost_usd", "cost", BLUE),
        ("penalty_usd", "short and late, priced", ORANGE),
    ):
        figure.add_bar(
            y=names,
            x=[row["p50"] / MILLION for row in known[name]],
            orientation="h",
            name=words,
            marker_color=colour,
        )
    both = known["loss_usd"]
    figure.add_scatter(
        y=names,
        x=[row["p50"] / MILLION for row in both],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [(row["p90"] - row["p50"]) / MILLION for row in both],
            "arrayminus": [(row["p50"] - row["p10"]) / MILLION for row in both],
            "color": GREY,
        },
        mode="markers",
        marker={"color": GREY, "size": 5},
        name="P10 to P90 of both together",
    )
    figure.update_layout(barmode="stack", height=170 + 46 * len(names), xaxis_title="USD million")
    return styled(figure)


def plan_comparison_report(document: dict[str, Any]) -> str:
    """The comparison as one HTML file that opens offline."""
    return page(
        "plan_compare.html",
        costs(document),
        document=document,
        letters=letters(len(document["scenarios"])),
        choices=choice_words(document),
        inputs=[(row["path"], list(map(input_words, row["values"]))) for row in document["changed"]],
        rows=rows(document),
        paired=PAIRED if document["paired"] else UNPAIRED,
    )
