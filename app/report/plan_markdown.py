"""The report of a capacity plan for a repository or a mail: the order of the HTML, without charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from app.report.plan_words import (
    PLAYED_HEAD,
    cut_words,
    decision_words,
    implied_words,
    instead_words,
    name_words,
    number_words,
    played_rows,
    power_words,
    risk_words,
    simulated_words,
    spread_count,
    spread_usd,
    undone_words,
    usd,
    wait_words,
)
from sim import units
from sim.units import format_percent


def markdown(document: dict[str, Any]) -> str:
    """The report as Markdown text."""
    said = (decision_words(document), instead_words(document), undone_words(document))
    lines = [f"# {document['scenario']['name']}", ""]
    for words in filter(None, said):
        lines += [words, ""]
    for title, part in (
        ("Demand", _demand(document)),
        ("Options", _options(document)),
        ("From bought to useful", _waterfall(document)),
        ("Milestones", _milestones(document)),
        ("Played job by job", _waits(document)),
        ("Cost and cash", _cost(document)),
        ("What moves the answer", _tornado(document)),
        ("Energy and carbon", _energy(document)),
        ("Risks", [f"- {risk_words(risk)}" for risk in document["risks"]] or ["None found."]),
        ("Assumptions", _assumptions(document)),
    ):
        if part:
            lines += [f"## {title}", "", *part, ""]
    lines += ["## Validation and limits", "", LIMITS.format(worlds=document["worlds"]), ""]
    foot = f"scenario {document['scenario']['hash']}, seed {document['seed']}, {document['worlds']:,} worlds"
    return "\n".join([*lines, f"rackcast {document['rackcast']}, {foot}", ""])


LIMITS = (
    "The ranking comes from {worlds:,} worlds in which work flows through capacity month by month; queues inside a "
    "month enter through the share that can be scheduled, which the simulation measures for the best few options in "
    "their busiest month. Training speed comes from rackcast's step model, serving speed from what the programme "
    "states, scaled by memory bandwidth; docs/validation.md says how far to believe them, docs/planning.md gives "
    "every formula. Prices age: each has its date in the register. What is marked assumed is an informed guess."
)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; a bar in a text would end its cell, so it is escaped."""
    body = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return (
        [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {row} |" for row in body)] if body else []
    )


def _demand(document: dict[str, Any]) -> list[str]:
    rows = [
        (row["programme"], row["kind"], spread_count(row["work"], row["unit"]), row["deadline"] or "",
         wait_words(row["wait_months"]))
        for row in document["demand"]
    ]  # fmt: skip
    lines = _table(("programme", "kind", "work over the plan", "deadline", "unmet work waits"), rows)
    lines += [f"- implied: {implied_words(item)}" for row in document["demand"] for item in row["implied"]]
    needed = [(row["name"], spread_count(row["devices"])) for row in document["needed_devices"]]
    return [*lines, "", *_table(("all of it in time on", "devices"), needed)]


def _options(document: dict[str, Any]) -> list[str]:
    rows = [
        (row["name"], spread_usd(row["cost_usd"]), spread_usd(row["penalty_usd"]),
         usd(row["usd_per_useful_hour"]["p50"]), f"{row['regret']:.2f}", format_percent(row['first_in']),
         row["why_not"] or "the choice")
        for row in document["options"]
    ]  # fmt: skip
    rows += [
        (row["name"], "cannot be had", "", "", "", "", "; ".join(row["why"])) for row in document["refused"]
    ]
    head = ("option", "cost", "short and late, priced", "$ a useful hour", "regret", "first in", "why not")
    near = [f"- near miss: {row['name']} {row['lacks']}" for row in document["near_misses"]]
    return [*_table(head, rows), *([""] if near else []), *near]


def _waterfall(document: dict[str, Any]) -> list[str]:
    rows = [(row["step"], spread_count(row["device_hours"])) for row in document["waterfall"]]
    return _table(("step", "device-hours"), rows)


def _milestones(document: dict[str, Any]) -> list[str]:
    rows = [
        (row["option"], row["programme"], row["deadline"], format_percent(row["in_time"]))
        for row in document["milestones"]
    ]
    return _table(("option", "programme", "deadline", "in time"), rows)


def _waits(document: dict[str, Any]) -> list[str]:
    rows = [
        (row["option"], wait["programme"], f"{wait['jobs']:,}", units.format_seconds(wait["p50_s"]),
         units.format_seconds(wait["p95_s"]))
        for row in document["simulated"]
        for wait in row["waits"]
    ]  # fmt: skip
    head = ("option", "programme", "jobs", "median wait", "95 % wait")
    if not document["simulated"]:
        return []
    played = _table(PLAYED_HEAD, played_rows(document))
    return [simulated_words(document), "", *played, "", *_table(head, rows)]


def _cost(document: dict[str, Any]) -> list[str]:
    lines = [
        (row["line"], spread_usd(row["usd"])) for row in document["cost_lines"] if any(row["usd"].values())
    ]
    each = [(row["programme"], row["per"], spread_usd(row["usd"])) for row in document["unit_costs"]]
    cash = [
        (row["quarter"], usd(row["usd"]["mean"]), spread_usd(row["usd"]))
        for row in document["cash_by_quarter"]
    ]
    even = [
        (
            row["system"],
            spread_usd(row["own"]),
            spread_usd(row["rent"]),
            format_percent(row["busy_frac"]["p50"]),
        )
        for row in document["break_even"]
    ]
    tables = (
        _table(("line", "USD over the plan"), lines),
        _table(("programme", "for", "USD"), each),
        _table(("quarter", "cash paid, mean", "P50 (P10 to P90)"), cash),
        _table(
            ("system", "an owned device-hour", "a rented one", "owning pays from this busy share on"), even
        ),
    )
    return [line for table in tables if table for line in (*table, "")][:-1]


def _tornado(document: dict[str, Any]) -> list[str]:
    rows = [
        (
            name_words(row["name"]),
            usd(row["low_usd"]),
            usd(row["high_usd"]),
            row["low_choice"],
            row["high_choice"],
        )
        for row in document["tornado"]
        if row["low_usd"] != row["high_usd"]
    ]
    return _table(("assumption", "at its P10", "at its P90", "best at P10", "best at P90"), rows)


def _energy(document: dict[str, Any]) -> list[str]:
    energy = document["energy"]
    rows = [(state, spread_count(kwh)) for state, kwh in energy["kwh"].items()]
    said = (
        f"Peak {power_words(energy['peak_w'])} on the site, {spread_count(energy['total_kwh'], 'kWh')}, "
        f"{spread_count(energy['carbon_kg'], 'kg CO2e')} location-based, of it "
        f"{spread_count(energy['embodied_kg'], 'kg')} for making the machines."
    )
    cut = cut_words(document)
    return [said, "", *([cut, ""] if cut else []), *_table(("state", "kWh"), rows)]


def _assumptions(document: dict[str, Any]) -> list[str]:
    rows = [
        (row["name"], *(number_words(row[end]) for end in ("low", "mid", "high")), row["unit"], row["kind"],
         row["date"], row["source"])
        for row in document["register"]
    ]  # fmt: skip
    return _table(("name", "P10", "P50", "P90", "unit", "kind", "date", "source"), rows)
