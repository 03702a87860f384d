"""A comparison of clusters on the terminal and as an HTML page: what differs, what came of it, how sure that is."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from app.report.cluster_figures import COLOURS
from app.report.cluster_words import VERDICTS, answer_words, value_words
from app.report.compare import letters
from app.report.console import plain_table, screen
from app.report.figures import styled
from app.report.html import page
from sim.cluster.tables import CAUSE_WORDS
from sim.units import format_percent


def difference_words(row: dict[str, Any], unit: str) -> str:
    """``-12 min (-15 min to -9 min)``, and whether it may be none."""
    low, mid, high = (_signed(row[key], unit) for key in ("low", "mean", "high"))
    if row["low"] == row["high"] == 0:
        return "none"
    if row["low"] == row["high"]:  # nothing is left to chance
        return mid
    return f"{mid} ({low} to {high})" + ("" if row["sure"] else ", may be none")


def _signed(value: float, unit: str) -> str:
    if unit == "share":
        text = f"{100 * value:+.{1 if abs(value) >= 0.01 else 2}f} points"
        return text if text.strip("+-0. points") else "0 points"
    return ("+" if value > 0 else "") + value_words(value, unit)


def rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers as words: a value for each scenario, a difference for each but the first."""
    return [
        {
            "words": row["words"],
            "values": [
                answer_words(value | {"unit": row["unit"], "name": row["name"]}) for value in row["values"]
            ],
            "differences": [
                "" if found is None else difference_words(found, row["unit"]) for found in row["differences"]
            ],
            "sure": [bool(found and found["sure"]) for found in row["differences"]],
        }
        for row in document["answers"]
    ]


def verdicts(document: dict[str, Any]) -> list[str]:
    """The verdict of each scenario."""
    return [
        f"{VERDICTS[one['verdict']]} Offered load {format_percent(one['offered_frac'])}, "
        f"saturates at {format_percent(one['turns_frac'])}."
        for one in document["scenarios"]
    ]


def print_cluster_comparison(document: dict[str, Any]) -> None:
    """Tables for the terminal."""
    console, names = screen(), letters(len(document["scenarios"]))
    for letter, one, words in zip(names, document["scenarios"], verdicts(document), strict=True):
        console.print(f"{letter}: {one['name']} ({one['replications']} replications). {words}", markup=False)
    console.print()
    inputs = plain_table("changed input", *names)
    for row in document["changed"]:
        inputs.add_row(row["path"], *("" if value is None else str(value) for value in row["values"]))
    console.print(inputs if document["changed"] else "no input differs")
    console.print()
    results = plain_table(
        "answer (95 % interval)", names[0], *(x for n in names[1:] for x in (n, f"{n} - A"))
    )
    for row in rows(document):
        cells = [row["values"][0]]
        for value, found in zip(row["values"][1:], row["differences"][1:], strict=True):
            cells += [value, found]
        results.add_row(row["words"], *cells)
    console.print(results)
    console.print(PAIRED, style="dim")


PAIRED = (
    "Differences are taken replication by replication under the same jobs and faults: their intervals can be narrower "
    "than those of the values."
)


def books(document: dict[str, Any]) -> go.Figure:
    """One bar a scenario: where its device-hours went."""
    figure, names = go.Figure(), letters(len(document["scenarios"]))
    for row in document["books"]:
        if max(row["share_frac"]) < 2e-4:
            continue
        figure.add_bar(
            y=names[::-1],
            x=[100 * share for share in row["share_frac"]][::-1],
            orientation="h",
            name=CAUSE_WORDS[row["cause"]],
            marker_color=COLOURS[row["cause"]],
        )
    figure.update_layout(
        barmode="stack",
        height=90 + 50 * len(names),
        xaxis_title="% of the device-hours owned",
        showlegend=False,
    )
    return styled(figure)


def cluster_comparison_report(document: dict[str, Any]) -> str:
    """The comparison as one HTML file that opens offline."""
    return page(
        "cluster_compare.html",
        books(document),
        document=document,
        letters=letters(len(document["scenarios"])),
        verdicts=verdicts(document),
        rows=rows(document),
        paired=PAIRED,
        colours=COLOURS,
        causes=CAUSE_WORDS,
    )
