"""Charts, drawn once for the report and the app: tables in, plotly figures out.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; every chart also labels its marks in words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from sim.results.timeline import Timeline
from sim.units import format_percent

COLOURS = {
    "forward": "#0072B2",
    "backward": "#56B4E9",
    "weight": "#3A6E9E",
    "optimizer": "#009E73",
    "tensor communication": "#E69F00",
    "pipeline communication": "#D55E00",
    "data communication": "#CC79A7",
    "stragglers": "#8B4513",
    "bubble": "#999999",
    "loader": "#F0E442",
    "offload": "#882255",
}
MEMORY_COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7", "#D55E00")
MAX_BARS = 4000
"""Tasks a timeline draws; a longer step shows its first part, and says so."""


def breakdown(document: dict[str, Any], *, legend: bool = True) -> go.Figure:
    """One bar: where the step's time goes; without ``legend`` a table beside it shows the colours."""
    figure = go.Figure()
    for part in document["parts"]:
        if part["share_frac"] < 5e-4:
            continue
        label = f"{part['words']} {format_percent(part['share_frac'], 1)}"
        figure.add_bar(
            y=["step"],
            x=[part["seconds"]],
            name=label,
            orientation="h",
            marker_color=COLOURS[part["cause"]],
            text=format_percent(part["share_frac"]) if part["share_frac"] > 0.04 else "",
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            hovertemplate=f"{label}<br>%{{x:.4g}} s<extra></extra>",
        )
    figure.update_layout(barmode="stack", height=280, xaxis_title="seconds of one step", yaxis_visible=False)
    figure.update_layout(legend_maxheight=0.75)  # of a phone: one cause a row, none to scroll for
    if not legend:
        figure.update_layout(showlegend=False, height=130)
    return styled(figure)


def parts_side_by_side(names: list[str], parts: list[dict[str, Any]]) -> go.Figure:
    """One bar a scenario: where its step's time goes; ``seconds`` of a part has a value for each name."""
    figure = go.Figure()
    for part in parts:
        figure.add_bar(
            y=names, x=part["seconds"], name=part["words"], orientation="h", marker_color=COLOURS[part["cause"]],
            hovertemplate=f"{part['words']}<br>%{{x:.4g}} s<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="stack", height=210 + 60 * len(names), xaxis_title="seconds of one step")
    figure.update_layout(legend_maxheight=0.75)
    figure.update_yaxes(autorange="reversed")
    return styled(figure)


def pareto(rows: list[dict[str, Any]], labels: list[str], unit: str = "tokens") -> go.Figure:
    """Points of a front: tokens (or samples) per second against memory to spare, one colour a cluster size."""
    figure = go.Figure()
    colours = dict(zip(sorted({row["devices"] for row in rows}), MEMORY_COLOURS * len(rows), strict=False))
    for devices, colour in colours.items():
        mine = [(row, label) for row, label in zip(rows, labels, strict=True) if row["devices"] == devices]
        figure.add_scatter(
            x=[row["memory_headroom_bytes"] / 2**30 for row, _ in mine],
            y=[row["tokens_per_s"] for row, _ in mine],
            text=[label for _, label in mine], name=f"{devices:,} devices", mode="markers+lines",
            marker={"size": 10, "color": colour}, line={"color": colour, "dash": "dot"},
            hovertemplate=f"%{{text}}<br>%{{y:,.0f}} {unit}/s, %{{x:.1f}} GiB to spare<extra></extra>",
        )  # fmt: skip
    figure.update_layout(height=380, xaxis_title="memory to spare on the fullest device, GiB")
    figure.update_yaxes(title=f"{unit}/s", rangemode="tozero")
    return styled(figure)


def tornado(bars: list[dict[str, Any]], metric: str) -> go.Figure:
    """One bar an input, from the figure at its low end to that at its high end, widest on top."""
    figure = go.Figure()
    for end, colour in (("low", COLOURS["backward"]), ("high", COLOURS["tensor communication"])):
        figure.add_bar(
            y=[bar["path"] for bar in bars],
            x=[_less(bar[f"at_{end}"], bar["at_middle"]) for bar in bars],
            base=[bar["at_middle"] for bar in bars],
            name=f"at its {end} end", orientation="h", marker_color=colour,
            customdata=[bar[end] for bar in bars], hovertemplate="%{y} = %{customdata}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="overlay", height=140 + 40 * len(bars), xaxis_title=metric)
    figure.update_yaxes(autorange="reversed")
    return styled(figure)


def _less(value: float | None, middle: float | None) -> float:
    return 0.0 if value is None or middle is None else value - middle


def shares(rows: list[dict[str, Any]], columns: dict[str, str]) -> go.Figure:
    """Bars of one or several columns (key -> words) for each input."""
    figure = go.Figure()
    for (key, words), colour in zip(columns.items(), MEMORY_COLOURS, strict=False):
        paths = [row["path"] for row in rows]
        figure.add_bar(
            y=paths, x=[row[key] or 0.0 for row in rows], name=words, orientation="h", marker_color=colour
        )
    figure.update_layout(height=140 + 50 * len(rows), barmode="group")
    figure.update_yaxes(autorange="reversed")
    return styled(figure)


def memory(document: dict[str, Any]) -> go.Figure:
    """Stacked bars: what fills a device of each pipeline rank, against what is usable."""
    ranks, gib = document["memory"]["ranks"], 2**30
    figure = go.Figure()
    names = list(dict.fromkeys(name for rank in ranks for name in rank["parts_bytes"]))
    for name, colour in zip(names, MEMORY_COLOURS, strict=False):
        figure.add_bar(
            x=[rank["rank"] for rank in ranks],
            y=[rank["parts_bytes"].get(name, 0) / gib for rank in ranks],
            name=name,
            marker_color=colour,
            hovertemplate=f"{name}<br>rank %{{x}}: %{{y:.1f}} GiB<extra></extra>",
        )
    usable = document["memory"]["usable_bytes"] / gib
    figure.add_hline(
        y=usable, line_dash="dash", line_color="#888", annotation_text=f"usable {usable:.0f} GiB"
    )
    figure.update_layout(
        barmode="stack", height=320, xaxis_title="pipeline rank", yaxis_title="GiB a device", xaxis_dtick=1
    )
    if names := rank_names(document):
        figure.update_xaxes(tickvals=[rank["rank"] for rank in ranks], ticktext=names, title="")
    if len(ranks) > 24:
        figure.update_layout(xaxis_dtick=4)
    return styled(figure)


def rank_names(document: dict[str, Any]) -> list[str] | None:
    """Names of the ranks on a cluster of several pools: number and pool; None where there is one pool."""
    ranks = document["memory"]["ranks"]
    return [f"{rank['pool']} · {rank['rank']}" for rank in ranks] if document.get("pools") and ranks else None


def timeline(log: Timeline, names: list[str] | None = None) -> go.Figure:
    """Gantt chart of the pipeline ranks: forward and backward passes, messages beside them.

    ``names`` label the ranks where their numbers say too little.
    """
    figure = go.Figure()
    shown = [n for n in range(len(log.tasks)) if log.end_s[n] > log.start_s[n]]
    shown = sorted(shown, key=lambda n: log.start_s[n])[:MAX_BARS]
    kinds = {"tensor": "tensor communication", "send": "pipeline communication", "load": "loader",
             "gradients": "data communication", "parameters": "data communication"}  # fmt: skip
    for cause in dict.fromkeys(kinds.get(log.tasks[n].kind, log.tasks[n].kind) for n in shown):
        rows = [n for n in shown if kinds.get(log.tasks[n].kind, log.tasks[n].kind) == cause]
        lane = np.array([0.28 if log.tasks[n].stream not in ("compute", "tensor") else 0.0 for n in rows])
        figure.add_bar(
            y=np.array([log.tasks[n].rank for n in rows]) + lane,
            x=log.end_s[rows] - log.start_s[rows],
            base=log.start_s[rows],
            orientation="h",
            width=np.where(lane > 0, 0.16, 0.4),
            name=cause,
            marker_color=COLOURS.get(cause, "#000000"),
            marker_line_width=0,
            customdata=[[log.tasks[n].micro_batch, log.tasks[n].chunk] for n in rows],
            hovertemplate=(
                f"{cause}<br>micro-batch %{{customdata[0]}}, chunk %{{customdata[1]}}"
                "<br>from %{base:.4g} s, %{x:.4g} s long<extra></extra>"
            ),
        )
    height = min(200 + 26 * log.ranks, 900)
    figure.update_layout(
        barmode="overlay", height=height, xaxis_title="seconds", yaxis_title="pipeline rank", bargap=0.1
    )
    figure.update_yaxes(autorange="reversed", dtick=max(1, log.ranks // 16))
    if names and len(names) <= 32:
        figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, title="")
    return styled(figure)


def kernels(document: dict[str, Any], count: int = 12) -> go.Figure:
    """The costliest ops of a layer: time, and how much of it the datasheet alone explains."""
    rows = sorted(document["kernels"], key=lambda row: -row["seconds"])[:count][::-1]
    figure = go.Figure()
    figure.add_bar(
        y=[row["name"] for row in rows],
        x=[1e3 * row["lower_bound_s"] for row in rows],
        orientation="h",
        name="lower bound (datasheet)",
        marker_color="#0072B2",
    )
    figure.add_bar(
        y=[row["name"] for row in rows],
        x=[1e3 * max(row["seconds"] - row["lower_bound_s"], 0) for row in rows],
        orientation="h",
        name="lost to efficiency",
        marker_color="#E69F00",
    )
    figure.update_layout(
        barmode="stack", height=120 + 26 * len(rows), xaxis_title="milliseconds a micro-batch"
    )
    return styled(figure)


def styled(figure: go.Figure, top: int = 10) -> go.Figure:
    """Transparent ground, so that the page's own light or dark theme shows through."""
    figure.update_layout(
        margin={"l": 10, "r": 10, "t": top, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "'Source Sans', system-ui, sans-serif", "size": 14, "color": "#777"},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "traceorder": "normal"},
        template="none",
    )
    figure.update_xaxes(
        gridcolor="rgba(128,128,128,0.25)", zerolinecolor="rgba(128,128,128,0.4)", automargin=True
    )
    figure.update_yaxes(gridcolor="rgba(128,128,128,0.15)", automargin=True)
    return figure
