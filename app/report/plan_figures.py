"""Charts of a capacity plan, drawn once for the report and the app: the plan's document in, plotly figures out."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from app.report.figures import styled
from app.report.plan_words import name_words
from sim.units import format_percent

BLUE, SKY, GREEN, ORANGE, RED, GREY = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#999999"
MILLION = 1e6


def options(document: dict[str, Any]) -> go.Figure:
    """What each option costs, and what it leaves undone or late; bars at the median, whiskers from P10 to P90."""
    rows = document["options"][::-1]
    figure = go.Figure()
    for key, name, colour in (("cost_usd", "cost", BLUE), ("penalty_usd", "short and late, priced", ORANGE)):
        figure.add_bar(
            y=[row["name"] for row in rows],
            x=[_mid(row[key]) / MILLION for row in rows],
            orientation="h",
            name=name,
            marker_color=colour,
            hovertemplate=f"%{{y}}<br>{name} %{{x:,.1f}} $M<extra></extra>",
        )
    figure.add_scatter(
        y=[row["name"] for row in rows],
        x=[_mid(row["loss_usd"]) / MILLION for row in rows],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [((row["loss_usd"]["p90"] or 0) - _mid(row["loss_usd"])) / MILLION for row in rows],
            "arrayminus": [(_mid(row["loss_usd"]) - (row["loss_usd"]["p10"] or 0)) / MILLION for row in rows],
            "color": GREY,
        },
        mode="markers",
        marker={"color": GREY, "size": 5},
        name="P10 to P90 of both together",
        hovertemplate="%{y}<br>both %{x:,.1f} $M<extra></extra>",
    )
    figure.update_layout(barmode="stack", height=150 + 34 * len(rows), xaxis_title="USD million")
    return styled(figure)


def waterfall(document: dict[str, Any]) -> go.Figure:
    """From device-hours bought to device-hours useful."""
    rows = document["waterfall"]
    hours = [_mid(row["device_hours"]) for row in rows]
    first = max(hours[0], 1e-9)
    figure = go.Figure(
        go.Bar(
            x=[row["step"] for row in rows],
            y=hours,
            marker_color=[BLUE, SKY, "#3A6E9E", GREEN, ORANGE][: len(rows)],
            text=[format_percent(value / first) for value in hours],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{x}<br>%{y:,.0f} device-hours<extra></extra>",
        )
    )
    figure.update_layout(height=300, yaxis_title="device-hours", showlegend=False)
    return styled(figure, top=30)


def milestones(document: dict[str, Any]) -> go.Figure:
    """How likely each option meets each deadline."""
    rows = document["milestones"]
    names = list(dict.fromkeys(row["option"] for row in rows))[::-1]
    figure = go.Figure()
    programmes = list(dict.fromkeys((row["programme"], row["deadline"]) for row in rows))
    for (programme, deadline), colour in zip(programmes, (BLUE, ORANGE, GREEN, RED, SKY), strict=False):
        share = {row["option"]: row["in_time"] for row in rows if row["programme"] == programme}
        figure.add_bar(
            y=names,
            x=[100 * share[name] for name in names],
            orientation="h",
            name=f"{programme} by {deadline}",
            marker_color=colour,
            text=[format_percent(share[name]) for name in names],
            textposition="auto",
            hovertemplate=f"%{{y}}<br>{programme}: %{{x:.0f}} %<extra></extra>",
        )
    figure.update_layout(
        barmode="group",
        height=130 + 30 * len(names) * max(len(programmes), 1),
        xaxis_title="in time, % of worlds",
    )
    figure.update_xaxes(range=[0, 105])
    return styled(figure)


def cash(document: dict[str, Any]) -> go.Figure:
    """Cash by quarter: mean, with P10 to P90."""
    rows = document["cash_by_quarter"]
    mid = [row["usd"]["mean"] / MILLION for row in rows]
    figure = go.Figure(
        go.Bar(
            x=[row["quarter"] for row in rows],
            y=mid,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [
                    max((row["usd"]["p90"] or 0) / MILLION - m, 0) for row, m in zip(rows, mid, strict=True)
                ],
                "arrayminus": [
                    max(m - (row["usd"]["p10"] or 0) / MILLION, 0) for row, m in zip(rows, mid, strict=True)
                ],
                "color": GREY,
            },
            marker_color=[BLUE if m >= 0 else GREEN for m in mid],
            hovertemplate="%{x}<br>%{y:,.2f} $M<extra></extra>",
        )
    )
    figure.update_layout(height=300, yaxis_title="USD million paid", showlegend=False)
    years = [
        row["quarter"] for row in rows if row["quarter"].endswith("Q1")
    ]  # all of them overlap on a phone
    figure.update_xaxes(tickvals=years or [row["quarter"] for row in rows], tickangle=0)
    return styled(figure)


def tornado(document: dict[str, Any], most: int = 12) -> go.Figure:
    """What each assumption does alone to cost and shortage of the choice; the widest on top."""
    rows = [row for row in document["tornado"] if row["high_usd"] != row["low_usd"]][:most][::-1]
    figure = go.Figure()
    middle = document["tornado_middle_usd"]
    for end, name, colour in (("low_usd", "at its P10", SKY), ("high_usd", "at its P90", RED)):
        figure.add_bar(
            y=[name_words(row["name"]) for row in rows],
            x=[(row[end] - middle) / MILLION for row in rows],
            base=[middle / MILLION] * len(rows),
            orientation="h",
            name=name,
            marker_color=colour,
            hovertemplate=f"%{{y}} {name}<br>%{{x:+,.2f}} $M<extra></extra>",
        )
    figure.update_layout(
        barmode="overlay",
        height=150 + 28 * len(rows),
        xaxis_title="USD million",
    )
    return styled(figure)


def _mid(spread: dict[str, float | None]) -> float:
    return spread["p50"] or 0.0
