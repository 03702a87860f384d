"""Charts of a search for a plan, drawn once for the report and the app."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from app.report.figures import styled
from sim.units import format_seconds


def heat(rows: list[dict[str, Any]]) -> go.Figure:
    """Tensor x pipeline degrees: the step time of the best plan that fits in each cell, empty where none does."""
    tensors = sorted({row["tensor"] for row in rows})
    pipelines = sorted({row["pipeline"] for row in rows})
    known = {(row["tensor"], row["pipeline"]): row for row in rows}
    cells = [[known.get((t, p), {}).get("step_time_s") for p in pipelines] for t in tensors]
    counts = [[known.get((t, p), {}).get("fitting", 0) for p in pipelines] for t in tensors]
    figure = go.Figure(
        go.Heatmap(
            x=[str(p) for p in pipelines],
            y=[str(t) for t in tensors],
            z=cells,
            text=[["none fits" if s is None else format_seconds(s, 3) for s in row] for row in cells],
            texttemplate="%{text}",
            customdata=counts,
            colorscale="Cividis_r",
            showscale=False,
            hoverongaps=False,
            hovertemplate="tensor %{y}, pipeline %{x}<br>best %{text}, %{customdata:,} plans fit<extra></extra>",
        )
    )
    figure.update_layout(height=130 + 44 * len(tensors), xaxis_title="pipeline stages", yaxis_title="tensor")
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")
    return styled(figure)
