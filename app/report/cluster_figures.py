"""Charts of a cluster study, drawn once for the report and the app: the study's document in, plotly figures out."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from app.report.figures import styled
from sim.units import format_percent

COLOURS = {
    "useful": "#0072B2",
    "checkpoint": "#56B4E9",
    "lost": "#D55E00",
    "restart": "#E69F00",
    "preemption_overhead": "#CC79A7",
    "undetected_fault": "#8B4513",
    "contention": "#009E73",
    "interference": "#44AA99",
    "down": "#882255",
    "idle_nobody_waits": "#BBBBBB",
    "idle_though_jobs_wait": "#F0E442",
}
HOUR, DAY = 3600.0, 86400.0


def books(document: dict[str, Any], *, legend: bool = True) -> go.Figure:
    """One bar: where every device-hour went; without ``legend`` a table beside it shows the colours."""
    figure = go.Figure()
    for row in document["books"]:
        if row["share_frac"] < 2e-4:
            continue
        label = f"{row['words']} {format_percent(row['share_frac'], 1)}"
        figure.add_bar(
            y=["all devices"],
            x=[100 * row["share_frac"]],
            orientation="h",
            name=label,
            marker_color=COLOURS[row["cause"]],
            text=format_percent(row["share_frac"]) if row["share_frac"] > 0.04 else "",
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate=f"{label}<br>{row['device_hours']:,.0f} device-hours<extra></extra>",
        )
    figure.update_layout(
        barmode="stack",
        height=130,
        xaxis_title="% of the device-hours owned",
        yaxis_visible=False,
        showlegend=legend,
    )
    if legend:
        figure.update_layout(height=280, legend_maxheight=0.75)  # of a phone: one cause a row
    return styled(figure)


def over_time(document: dict[str, Any]) -> go.Figure:
    """Devices held and jobs waiting, over time."""
    rows, devices = document["series"], document["cluster"]["devices"]
    days = [row["time_s"] / DAY for row in rows]
    figure = go.Figure()
    for column, scale, name, colour, axis in (
        ("held", 100 / devices, "devices held, %", "0, 114, 178", "y"),
        ("waiting_jobs", 1.0, "jobs waiting", "213, 94, 0", "y2"),
    ):
        edge = {"x": days, "yaxis": axis, "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        figure.add_scatter(y=[scale * row[f"{column}_p10"] for row in rows], **edge)
        band = f"rgba({colour}, 0.18)"
        figure.add_scatter(
            y=[scale * row[f"{column}_p90"] for row in rows], fill="tonexty", fillcolor=band, **edge
        )
        line = {"color": f"rgb({colour})", "width": 1.5}
        figure.add_scatter(x=days, y=[scale * row[column] for row in rows], name=name, line=line, yaxis=axis)
    figure.update_layout(
        height=320,
        xaxis_title="days",
        yaxis={"title": "devices held, %", "range": [0, 105]},
        yaxis2={
            "title": "jobs waiting",
            "overlaying": "y",
            "tickmode": "auto",
            "nticks": 6,
            "side": "right",
            "rangemode": "tozero",
            "showgrid": False,
        },
    )
    return styled(figure)


def node_map(document: dict[str, Any]) -> go.Figure:
    """Each node's use over time; nodes out of service stand out."""
    nodes = document["nodes"]
    values = [
        [-1.0 if gone else share for share, gone in zip(held, down, strict=True)]
        for held, down in zip(nodes["held"], nodes["down"], strict=True)
    ]
    scale = [[0.0, "#D55E00"], [0.499, "#D55E00"], [0.5, "#F2F4F7"], [1.0, "#0072B2"]]
    figure = go.Figure(
        go.Heatmap(
            x=[time / DAY for time in nodes["time_s"]],
            z=values,
            zmin=-1,
            zmax=1,
            colorscale=scale,
            showscale=False,
            hovertemplate="day %{x:.1f}, node %{y}<br>share held %{z:.2f} (-1 = out of service)<extra></extra>",
        )
    )
    figure.update_layout(
        height=max(220, min(160 + 5 * nodes["shown"], 760)), xaxis_title="days", yaxis_title="node"
    )
    return styled(figure)


def waits_by_size(document: dict[str, Any]) -> go.Figure:
    """Mean and 95 % wait by gang size."""
    rows = sorted(document["by_size"], key=lambda row: int(str(row["name"]).split("-")[-1]))
    figure = go.Figure()
    for key, name, colour in (
        ("mean_wait_s", "mean", "#0072B2"),
        ("p95_wait_s", "95 % stay below", "#E69F00"),
    ):
        figure.add_bar(
            x=[row["name"] for row in rows],
            y=[row[key] / HOUR for row in rows],
            name=name,
            marker_color=colour,
        )
    figure.update_layout(
        barmode="group", height=300, xaxis_title="devices of a gang", yaxis_title="hours of waiting"
    )
    figure.update_xaxes(type="category")
    return styled(figure)
