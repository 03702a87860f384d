"""The report of a cluster study: one HTML file that opens offline."""

from __future__ import annotations

from typing import Any

from plotly.offline import get_plotlyjs

from app.report import cluster_figures
from app.report.cluster_words import (
    POWER_WORDS,
    answer_words,
    energy_words,
    idle_words,
    range_words,
    sureness_words,
    value_words,
    verdict_words,
    warm_up_words,
)
from app.report.html import divs, environment


def cluster_report(document: dict[str, Any]) -> str:
    """The report as HTML text."""
    charts = {
        "books": cluster_figures.books(document, legend=False),
        "over_time": cluster_figures.over_time(document),
        "node_map": cluster_figures.node_map(document),
    }
    if document["by_size"]:
        charts["waits_by_size"] = cluster_figures.waits_by_size(document)
    return (
        environment()
        .get_template("cluster.html")
        .render(
            document=document,
            colours=cluster_figures.COLOURS,
            verdict=verdict_words(document),
            sureness=sureness_words(document),
            power_words=POWER_WORDS,
            idle=idle_words(document),
            energy=energy_words(document),
            warm_up=warm_up_words(document),
            answer_words=answer_words,
            range_words=range_words,
            cards={row["name"]: value_words(row["mean"], row["unit"]) for row in document["answers"]},
            plotly=get_plotlyjs(),
            charts=divs(charts),
        )
    )
