"""A cluster study in the terminal: the verdict, the numbers, where every device-hour went, who waited."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from app.report.cluster_words import (
    answer_words,
    energy_words,
    idle_words,
    range_words,
    sureness_words,
    value_words,
    verdict_words,
    warm_up_words,
)
from app.report.console import plain_table, screen
from sim.units import format_percent, format_seconds


def print_cluster(document: dict[str, Any], console: Console | None = None) -> None:
    """The answer of ``rackcast run`` for a scenario with [jobs]."""
    out = console or screen()
    scenario = document["scenario"]
    out.print(f"[bold]{scenario['name']}[/bold]", highlight=False)
    if scenario["shows"]:
        out.print(scenario["shows"], style="dim", highlight=False)
    pools = ", ".join(f"{p['nodes']:,} x {p['system']}" for p in document["cluster"]["pools"])
    policy = document["policy"]
    out.print(
        f"{document['cluster']['devices']:,} devices ({pools}); {policy['name']}, {policy['placement']}; "
        f"{document['jobs']:,} jobs in {format_seconds(document['span_s'])}"
    )
    if document["jobs_left_out"]:
        out.print(f"{document['jobs_left_out']:,} jobs come after that span and are left out (study.span_s)")
    out.print()
    out.print(
        verdict_words(document),
        highlight=False,
        style="" if document["verdict"]["word"] == "stable" else "bold yellow",
    )
    out.print(sureness_words(document), style="dim", highlight=False)
    out.print()
    for part in (_answers(document), _books(document), _groups(document)):
        if part.row_count:
            out.print(part)
            out.print()
    for line in (idle_words(document), energy_words(document), warm_up_words(document)):
        if line:
            out.print(line, highlight=False)
    out.print()
    for row in document["inputs"]:
        out.print(
            f"{row['name']}: {row['value']} [{row['kind']}] {row['source']}",
            style="dim",
            markup=False,
            highlight=False,
        )
    foot = f"seed {scenario['seed']}  scenario {scenario['hash']}  rackcast {document['rackcast']}"
    out.print(foot, style="dim", highlight=False)


def _answers(document: dict[str, Any]) -> Table:
    table = plain_table("answer", "mean (95 % interval)", "single runs")
    for row in document["answers"]:
        table.add_row(row["words"], answer_words(row), range_words(row))
    return table


def _books(document: dict[str, Any]) -> Table:
    table = plain_table("where the device-hours went", "share", "device-hours")
    for row in document["books"]:
        if row["device_hours"]:
            table.add_row(row["words"], format_percent(row["share_frac"], 2), f"{row['device_hours']:,.0f}")
    return table


def _groups(document: dict[str, Any]) -> Table:
    table = plain_table("gang size (first run)", "jobs", "device-hours", "mean wait", "95 % wait", "slowdown")
    for row in document["by_size"]:
        table.add_row(
            row["name"],
            f"{row['jobs']:,.0f}",
            f"{row['device_hours']:,.0f}",
            value_words(row["mean_wait_s"], "s"),
            value_words(row["p95_wait_s"], "s"),
            f"{row['mean_slowdown']:.2f}",
        )
    return table
