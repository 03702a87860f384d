"""One HTML file that opens offline: plotly's script inline once, charts and tables from the answer's document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, select_autoescape
from plotly.offline import get_plotlyjs

from app.report import figures
from app.report.terminal import (
    calibration_words,
    fit_words,
    has_tokens,
    interval_words,
    leading_inputs,
    machine_words,
    not_tried_words,
    plan_words,
    rank_words,
    share_words,
    work_words,
)
from sim import units
from sim.results.timeline import Timeline


def step_report(document: dict[str, Any], log: Timeline) -> str:
    """The report of one training step as HTML text."""
    charts = {
        "breakdown": figures.breakdown(document, legend=False),
        "timeline": figures.timeline(log, figures.rank_names(document)),
    }
    if document["memory"]["ranks"]:
        charts["memory"] = figures.memory(document)
    if document["kernels"]:
        charts["kernels"] = figures.kernels(document)
    return (
        environment()
        .get_template("step.html")
        .render(
            document=document,
            plan=plan_words(document),
            fit=fit_words(document) if not document["memory"]["fits"] else "",
            machines=machine_words(document),
            has_tokens=has_tokens(document),
            kernels=sorted(document["kernels"], key=lambda row: -row["seconds"]),
            interval=interval_words(document),
            inputs=leading_inputs(document, count=len(document.get("sensitivities", []))),
            not_tried=not_tried_words(document) if document.get("not_tried") else "",
            shown_bars=min(len(log.tasks), figures.MAX_BARS),
            tasks=len(log.tasks),
            plotly=get_plotlyjs(),
            colours=figures.COLOURS,
            charts=divs(charts),
        )
    )


def page(template: str, chart: go.Figure | None, **values: Any) -> str:
    """A page with at most one chart, as HTML text."""
    drawn = "" if chart is None else divs({"chart": chart})["chart"]
    script = get_plotlyjs() if chart is not None else ""
    return environment().get_template(template).render(chart=drawn, plotly=script, **values)


def divs(charts: Mapping[str, go.Figure]) -> dict[str, str]:
    """Each chart as the element that carries its name; the page holds plotly's script once."""
    options = {"displayModeBar": False, "responsive": True}
    return {
        name: figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=options)
        for name, figure in charts.items()
    }


def environment() -> Environment:
    """Templates with rackcast's number formats as filters; everything is escaped."""
    env = Environment(
        loader=PackageLoader("app.report"),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "seconds": units.format_seconds,
        "bytes": units.format_bytes,
        "percent": share_words,
        "count": units.format_count,
        "flop_per_s": units.format_flop_per_s,
        "calibration": calibration_words,
        "work": work_words,
        "rank_name": rank_words,
    }
    return env
