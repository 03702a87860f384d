"""Comparisons on a page: what differs between scenarios, then what came of it, one column each.

Like two maps laid over each other: only what does not coincide is worth a look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from app.report import cluster_compare, figures, plan_compare
from app.report.compare import comparison_report, difference_words
from app.report.compare import rows as step_rows
from app.web import shell
from app.web.state import plain

OTHER = "◆ "
"""Before a value that is not the first scenario's."""


def legend(names: Sequence[str], labels: Sequence[str]) -> None:
    """Which letter is which scenario."""
    st.caption(plain("; ".join(f"{name}: {label}" for name, label in zip(names, labels, strict=True))))


def inputs(document: dict[str, Any], names: Sequence[str]) -> None:
    """Inputs that differ; what is not as in the first is marked."""
    st.markdown("**Inputs that differ**")
    if not document["changed"]:
        st.write("No input differs.")
        return
    table = []
    for row in document["changed"]:
        written = [plan_compare.input_words(value) for value in row["values"]]
        marked = [f"{OTHER if text != written[0] else ''}{text}" for text in written]
        table.append({"input": row["path"]} | dict(zip(names, marked, strict=True)))
    shell.table(table)
    st.caption(f"{OTHER.strip()} marks what is not as in {names[0]}.")


def steps(document: dict[str, Any], names: Sequence[str]) -> None:
    """Training steps: differences with their paired intervals, parts, inputs, figures."""
    for name, row, outcome in zip(names, document["step_time"], document["outcomes"], strict=True):
        if outcome["outcome"] == "does not fit":
            st.error(f"{name} does not fit: {plain(outcome['reason'])}")
        if name != names[0]:
            st.markdown(f"**{name}** against {names[0]}: step {plain(difference_words(row))}.")
    parts = [
        {"part": part["words"], **dict(zip(names, part["seconds"], strict=True))}
        for part in document["parts"]
    ]
    shell.chart(
        figures.parts_side_by_side(list(names), document["parts"]), parts, "parts",
        alt="Where the time of each scenario's step goes, a bar each",
    )  # fmt: skip
    inputs(document, names)
    st.markdown("**Figures**")
    table = []
    for row in step_rows(document):
        cells = {"figure": row["words"]}
        for name, value, change in zip(names, row["values"], row["changes"], strict=True):
            cells[name] = f"{value} ({change})" if change and change != "+0.0 %" else value
        table.append(cells)
    shell.table(table)
    st.download_button(
        "Download report", lambda: comparison_report(document), "comparison.html", "text/html",
        on_click="ignore", key="download_report",
    )  # fmt: skip


def clusters(document: dict[str, Any], names: Sequence[str]) -> None:
    """Clusters: verdicts, answers with differences replication by replication, books, inputs."""
    for name, words in zip(names, cluster_compare.verdicts(document), strict=True):
        st.markdown(f"**{name}**: {plain(words)}")
    books = cluster_compare.books(document)
    books.update_layout(showlegend=True, height=books.layout.height + 100)
    shell.chart(
        books,
        [{"cause": row["cause"], **dict(zip(names, row["share_frac"], strict=True))} for row in document["books"]],
        "books",
        alt="Where the device-hours of each scenario's cluster went, a bar each",
    )  # fmt: skip
    inputs(document, names)
    st.markdown("**Answers** (95 % intervals)")
    table = []
    for row in cluster_compare.rows(document):
        cells = {"answer": row["words"], names[0]: row["values"][0]}
        for name, value, moved in zip(names[1:], row["values"][1:], row["differences"][1:], strict=True):
            cells |= {name: value, f"{name} - {names[0]}": moved}
        table.append(cells)
    shell.table(table)
    st.caption(cluster_compare.PAIRED)
    st.download_button(
        "Download report", lambda: cluster_compare.cluster_comparison_report(document), "comparison.html",
        "text/html", on_click="ignore", key="download_report",
    )  # fmt: skip


def plans(document: dict[str, Any], names: Sequence[str]) -> None:
    """Capacity plans: the choice of each, costs, differences world by world, inputs."""
    for name, words in zip(names, plan_compare.choice_words(document), strict=True):
        st.markdown(f"**{name}**: {plain(words)}.")
    answers = plan_compare.rows(document)
    for place, name in enumerate(names[1:], 1):
        for row in answers[:1]:
            st.markdown(f"**{name}** against {names[0]}: {row['words']} {plain(row['differences'][place])}.")
    shell.chart(
        plan_compare.costs(document),
        [{"answer": row["words"], **dict(zip(names, row["values"], strict=True))} for row in answers],
        "costs",
        alt="Cost of each scenario's choice, and what is short and late: "
        + "; ".join(f"{name} {value}" for name, value in zip(names, answers[0]["values"], strict=True)),
    )
    inputs(document, names)
    st.markdown("**Over the plan** (P50, P10 to P90)")
    shell.table([{"answer": row["words"], **dict(zip(names, row["values"], strict=True))} for row in answers])
    st.markdown("**Differences on average** (95 % intervals)")
    apart = [f"{name} - {names[0]}" for name in names[1:]]
    shell.table(
        [{"answer": row["words"], **dict(zip(apart, row["differences"][1:], strict=True))} for row in answers]
    )
    st.caption(plan_compare.PAIRED if document["paired"] else plan_compare.UNPAIRED)
    st.download_button(
        "Download report", lambda: plan_compare.plan_comparison_report(document), "comparison.html", "text/html",
        on_click="ignore", key="download_report",
    )  # fmt: skip
