"""Charts of predicted against measured, drawn once for every face."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.report.figures import styled

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "circle-open")
MOST_POINTS = 3000


def against(table: pd.DataFrame, predicted: str, group: str) -> go.Figure:
    """Predicted over measured, both logarithmic, with the line of agreement and a band of 10 %.

    The largest groups have a colour and a symbol each; the others share the last.
    """
    rows = table.dropna(subset=[predicted, "measured_s"])
    rows = rows[(rows[predicted] > 0) & (rows["measured_s"] > 0)]
    rows = rows.iloc[:: max(-(-len(rows) // MOST_POINTS), 1)]
    figure = go.Figure()
    if rows.empty:
        return styled(figure)
    ends = np.array([rows["measured_s"].min() * 0.8, rows["measured_s"].max() * 1.25])
    figure.add_scatter(
        x=[*ends, *ends[::-1]], y=[*(ends * 1.1), *(ends[::-1] / 1.1)], fill="toself", mode="none",
        fillcolor="rgba(128,128,128,0.2)", name="within 10 %", hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": "#888", "width": 1}, name="agreement", hoverinfo="skip"
    )
    named = list(rows[group].value_counts().index[: len(COLOURS) - 1])
    kept = rows[group].where(rows[group].isin(named), "others")
    for name, colour, symbol in zip([*named, "others"], COLOURS, SYMBOLS, strict=False):
        mine = rows[kept == name]
        if mine.empty:
            continue
        figure.add_scatter(
            x=mine["measured_s"], y=mine[predicted], mode="markers", name=str(name) or "not told",
            marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75},
            text=mine["gpu"] + "<br>" + mine["what"],
            hovertemplate="%{text}<br>measured %{x:.4g} s, predicted %{y:.4g} s<extra></extra>",
        )  # fmt: skip
    figure.update_layout(height=440)
    clock = {"exponentformat": "SI", "minexponent": 0, "ticksuffix": "s"}  # 10 ms, not 0.01
    figure.update_xaxes(type="log", dtick=1, title="measured", **clock)
    figure.update_yaxes(type="log", dtick=1, title="predicted", **clock)
    return styled(figure)


def residuals(table: pd.DataFrame, error: str) -> go.Figure:
    """How the errors spread: a histogram of predicted over measured, less one, in percent; the ends are cut at 100."""
    values = table[error].dropna().clip(-100, 100)
    figure = go.Figure(
        go.Histogram(x=values, xbins={"start": -100, "end": 105, "size": 5}, marker_color="#0072B2")
    )
    figure.add_vline(x=0, line_color="#888")
    figure.update_layout(height=240, showlegend=False, bargap=0.05)
    figure.update_xaxes(title="predicted over measured, %", range=[-105, 105])
    figure.update_yaxes(title="rows")
    return styled(figure)
