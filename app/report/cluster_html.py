"""The report of a cluster study: one HTML file that opens offline."""

from __future__ import annotations

from typing import Any

from plotly.offline import get_plotlyjs

from app.report import cluster_figures
from app.report.cluster_words import (
    answer_words,
    energy_words,
    idle_words,
    range_words,
    sureness_words,
    value_words,
    verdict_words,
    warm_up_words,
)
from app.report.html import environment

CHARTS = ("books", "over_time", "waits_by_size", "node_map")


def cluster_report(document: dict[str, Any]) -> str:
    """The report as HTML text."""
    charts = {
        name: getattr(cluster_figures, name)(document)
        for name in CHARTS
        if name != "waits_by_size" or document["by_size"]
    }
    return (
        environment()
        .get_template("cluster.html")
        .render(
            document=document,
            verdict=verdict_words(document),
            sureness=sureness_words(document),
            idle=idle_words(document),
            energy=energy_words(document),
            warm_up=warm_up_words(document),
            answer_words=answer_words,
            range_words=range_words,
            cards={row["name"]: value_words(row["mean"], row["unit"]) for row in document["answers"]},
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
    )
