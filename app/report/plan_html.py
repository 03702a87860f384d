"""The report of a capacity plan: HTML that opens offline, Markdown, and tables for a spreadsheet."""

from __future__ import annotations

from typing import Any

from plotly.offline import get_plotlyjs

from app.report import plan_figures
from app.report.html import environment
from app.report.plan_words import (
    decision_words,
    risk_words,
    simulated_words,
    spread_count,
    spread_usd,
    undone_words,
    usd,
)


def plan_report(document: dict[str, Any]) -> str:
    """The report as one HTML text."""
    charts = {name: getattr(plan_figures, name)(document) for name in CHARTS if _has(document, name)}
    env = environment()
    env.filters["usd"] = usd
    return env.get_template("plan.html").render(
        document=document,
        decision=decision_words(document),
        undone=undone_words(document),
        simulated=simulated_words(document) if document["simulated"] else "",
        risks=[risk_words(risk) for risk in document["risks"]],
        spread_count=spread_count,
        spread_usd=spread_usd,
        plotly=get_plotlyjs(),
        charts={
            name: figure.to_html(
                full_html=False,
                include_plotlyjs=False,
                div_id=name,
                config={"displayModeBar": False, "responsive": True},
            )
            for name, figure in charts.items()
        },
    )


CHARTS = ("options", "waterfall", "milestones", "cash", "tornado")


def _has(document: dict[str, Any], chart: str) -> bool:
    return chart != "milestones" or bool(document["milestones"])


def tables(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The document as flat tables, by name; a spread becomes three columns."""
    named = {
        "options": document["options"],
        "refused": [{"name": row["name"], "why": "; ".join(row["why"])} for row in document["refused"]],
        "demand": [
            {k: v for k, v in row.items() if k not in ("by_month", "implied")} for row in document["demand"]
        ],
        "demand by month": [
            {"programme": row["programme"], "unit": row["unit"], "month": month + 1, **spread}
            for row in document["demand"]
            for month, spread in enumerate(row["by_month"])
        ],
        "waterfall": document["waterfall"],
        "milestones": document["milestones"],
        "cost": document["cost_lines"],
        "cash": document["cash_by_quarter"],
        "tornado": document["tornado"],
        "risks": document["risks"],
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


def markdown(document: dict[str, Any]) -> str:
    """The report for a repository or a mail: the same order, without charts."""
    lines = [f"# {document['scenario']['name']}", "", decision_words(document), undone_words(document), ""]
    lines += ["## Options", "", "| option | cost | short and late, priced | regret | why not |"]
    lines += ["|---|---|---|---|---|"]
    for row in document["options"]:
        cells = (row["name"], spread_usd(row["cost_usd"]), spread_usd(row["penalty_usd"]))
        lines.append(f"| {' | '.join(cells)} | {row['regret']:.2f} | {row['why_not'] or 'the choice'} |")
    lines += [
        f"| {row['name']} | cannot be had | | | {'; '.join(row['why'])} |" for row in document["refused"]
    ]
    lines += ["", "## Demand", "", "| programme | work | deadline |", "|---|---|---|"]
    lines += [
        f"| {row['programme']} | {spread_count(row['work'], row['unit'])} | {row['deadline'] or ''} |"
        for row in document["demand"]
    ]
    lines += ["", "## From bought to useful", "", "| step | device-hours |", "|---|---|"]
    lines += [f"| {row['step']} | {spread_count(row['device_hours'])} |" for row in document["waterfall"]]
    if document["milestones"]:
        lines += ["", "## Milestones", "", "| option | programme | deadline | in time |", "|---|---|---|---|"]
        lines += [
            f"| {row['option']} | {row['programme']} | {row['deadline']} | {row['in_time']:.0%} |"
            for row in document["milestones"]
        ]
    lines += ["", "## Cost", "", "| line | USD |", "|---|---|"]
    lines += [
        f"| {row['line']} | {spread_usd(row['usd'])} |" for row in document["cost_lines"] if row["usd"]["p90"]
    ]
    lines += ["", "## Risks", "", *(f"- {risk_words(risk)}" for risk in document["risks"])]
    lines += ["", "## Assumptions", "", "| name | P10 | P50 | P90 | unit | kind | source |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [
        f"| {row['name']} | {row['low']:.4g} | {row['mid']:.4g} | {row['high']:.4g} | {row['unit']} | {row['kind']} "
        f"| {row['source']} |"
        for row in document["register"]
    ]
    foot = (
        f"rackcast {document['rackcast']}, scenario {document['scenario']['hash']}, seed {document['seed']}"
    )
    return "\n".join([*lines, "", foot, ""])
