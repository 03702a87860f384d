"""A capacity plan in the terminal: the decision first, then why not the others, then what would change it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from app.report.console import plain_table, screen
from app.report.plan_words import (
    PLAYED_HEAD,
    cut_words,
    decision_words,
    instead_words,
    name_words,
    played_rows,
    risk_words,
    simulated_words,
    spread_count,
    spread_usd,
    undone_words,
    usd,
)
from sim import units
from sim.units import format_percent


def print_plan(document: dict[str, Any], console: Console | None = None) -> None:
    """The answer of ``rackcast plan``."""
    out = console or screen()
    scenario = document["scenario"]
    out.print(f"[bold]{scenario['name']}[/bold]", highlight=False)
    if scenario["shows"]:
        out.print(scenario["shows"], style="dim", highlight=False)
    out.print()
    out.print(
        decision_words(document),
        highlight=False,
        style="bold yellow" if document["decision"]["too_close"] else "",
    )
    said = [instead_words(document), undone_words(document)]
    said += [simulated_words(document) if document["simulated"] else "", cut_words(document)]
    for words in filter(None, said):
        out.print(words, highlight=False)
    out.print()
    for build in (_options, _waterfall, _milestones, _played, _waits, _unit_costs, _tornado):
        table = build(document)
        if table.row_count:
            out.print(table)
            out.print()
    for row in document["near_misses"]:
        out.print(f"- near miss: {row['name']}: {row['lacks']}", highlight=False)
    for risk in document["risks"]:
        out.print(f"- {risk_words(risk)}", highlight=False)
    foot = f"seed {document['seed']}  {document['worlds']} worlds  scenario {scenario['hash']}"
    out.print(f"{foot}  rackcast {document['rackcast']}", style="dim", highlight=False)


def _options(document: dict[str, Any]) -> Table:
    columns = ("option", "cost", "short and late, priced", "regret index", "why not")
    table = plain_table(*columns, text=columns[-1:], title="Options")
    for row in document["options"]:
        cells = (
            row["name"],
            spread_usd(row["cost_usd"]),
            usd(row["penalty_usd"]["p50"]),
            f"{row['regret']:.2f}",
        )
        table.add_row(*cells, row["why_not"] or "the choice")
    for row in document["refused"]:
        table.add_row(row["name"], "", "", "", "; ".join(row["why"]), style="dim")
    return table


def _waterfall(document: dict[str, Any]) -> Table:
    table = plain_table("step", "device-hours", title="From bought to useful")
    if document["waterfall"][0]["device_hours"]["p50"]:
        for row in document["waterfall"]:
            table.add_row(row["step"], spread_count(row["device_hours"]))
    return table


def _milestones(document: dict[str, Any]) -> Table:
    table = plain_table("option", "programme", "deadline", "in time", text=("programme",), title="Milestones")
    for row in document["milestones"]:
        table.add_row(row["option"], row["programme"], row["deadline"], format_percent(row["in_time"]))
    return table


def _waits(document: dict[str, Any]) -> Table:
    head = ("option", "programme", "median wait", "95 % wait")
    table = plain_table(*head, text=("programme",), title="How long jobs wait in the busiest month")
    for row in document["simulated"]:
        for number, wait in enumerate(row["waits"]):
            waits = (units.format_seconds(wait["p50_s"]), units.format_seconds(wait["p95_s"]))
            table.add_row(row["option"] if number == 0 else "", wait["programme"], *waits)
    return table


def _played(document: dict[str, Any]) -> Table:
    table = plain_table(*PLAYED_HEAD, title="Busiest month, job by job")
    for row in played_rows(document):
        table.add_row(*row)
    return table


def _unit_costs(document: dict[str, Any]) -> Table:
    table = plain_table("programme", "for", "USD", text=("for",), title="What one of each costs")
    for row in document["unit_costs"]:
        table.add_row(row["programme"], row["per"], spread_usd(row["usd"]))
    return table


def _tornado(document: dict[str, Any]) -> Table:
    table = plain_table("assumption", "at its P10", "at its P90", title="What moves the answer")
    for row in document["tornado"][:8]:
        table.add_row(name_words(row["name"]), usd(row["low_usd"]), usd(row["high_usd"]))
    return table
