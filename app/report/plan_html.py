"""The report of a capacity plan: HTML that opens offline, and its tables for a spreadsheet."""

from __future__ import annotations

from typing import Any

from plotly.offline import get_plotlyjs

from app.report import plan_figures
from app.report.html import divs, environment
from app.report.plan_markdown import LIMITS
from app.report.plan_words import (
    PLAYED_HEAD,
    confidence_words,
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


def plan_report(document: dict[str, Any]) -> str:
    """The report as one HTML text."""
    charts = {name: getattr(plan_figures, name)(document) for name in CHARTS if _has(document, name)}
    env = environment()
    env.filters |= {"usd": usd, "power": power_words, "number": number_words, "named": name_words}
    env.filters["confidence"] = confidence_words
    return env.get_template("plan.html").render(
        document=document,
        decision=decision_words(document),
        undone=undone_words(document),
        instead=instead_words(document),
        cut=cut_words(document),
        wait_words=wait_words,
        limits=LIMITS.format(worlds=document["worlds"]),
        simulated=simulated_words(document) if document["simulated"] else "",
        played_head=PLAYED_HEAD,
        played=played_rows(document),
        risks=[risk_words(risk) for risk in document["risks"]],
        implied_words=implied_words,
        spread_count=spread_count,
        spread_usd=spread_usd,
        plotly=get_plotlyjs(),
        charts=divs(charts),
    )


CHARTS = ("options", "waterfall", "milestones", "cash", "tornado")


def _has(document: dict[str, Any], chart: str) -> bool:
    return chart != "milestones" or bool(document["milestones"])


def tables(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The document as flat tables, by name; a spread becomes three columns."""
    named = {
        "decision": [
            {key: value for key, value in document["decision"].items() if key not in ("nodes", "contenders")}
        ],
        "options": document["options"],
        "refused": [{"name": row["name"], "why": "; ".join(row["why"])} for row in document["refused"]],
        "near misses": document["near_misses"],
        "demand": [
            {k: v for k, v in row.items() if k not in ("by_month", "implied")} for row in document["demand"]
        ],
        "needed devices": document["needed_devices"],
        "demand by month": [
            {"programme": row["programme"], "unit": row["unit"], "month": month + 1, **spread}
            for row in document["demand"]
            for month, spread in enumerate(row["by_month"])
        ],
        "waterfall": document["waterfall"],
        "milestones": document["milestones"],
        "cost": document["cost_lines"],
        "unit costs": document["unit_costs"],
        "cash": document["cash_by_quarter"],
        "tornado": document["tornado"],
        "risks": document["risks"],
        "energy": [
            *({"item": f"{state}, kWh", **spread} for state, spread in document["energy"]["kwh"].items()),
            {"item": "all, kWh", **document["energy"]["total_kwh"]},
            {"item": "carbon, kg CO2e", **document["energy"]["carbon_kg"]},
            {"item": "of it embodied, kg CO2e", **document["energy"]["embodied_kg"]},
        ],
        "simulated": [{k: v for k, v in row.items() if k != "waits"} for row in document["simulated"]],
        "waits": [
            {"option": row["option"], **wait} for row in document["simulated"] for wait in row["waits"]
        ],
        "assumptions": document["register"],
    }
    return {name: [_flat(row) for row in rows] for name, rows in named.items()}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{key}_{end}": item for end, item in value.items()}
        else:
            flat[key] = value
    return flat
