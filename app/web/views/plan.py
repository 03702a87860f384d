"""Plan: which capacity to buy, rent or reserve for a demand, why, and what would change the choice."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app.report import plan_figures, plan_html, plan_markdown
from app.report.plan_words import (
    confidence_words,
    decision_words,
    name_words,
    number_words,
    risk_words,
    simulated_words,
    spread_count,
    spread_usd,
    undone_words,
    usd,
)
from app.web import shell, waiting
from app.web.knobs import plan_knobs
from app.web.state import Case, plain


def show(document: dict, case: Case) -> None:
    """The decision, its cost and its risk; the rest one click away."""
    decision = document["decision"]
    sure = "too close to call" if decision["too_close"] else confidence_words(decision["confidence"])
    shell.metrics(
        [
            ("Choice", plain(decision["option"]), "", "The least regretted option over the drawn worlds."),
            ("Cost over the plan", usd(decision["cost_usd"]["p50"]), "", spread_usd(decision["cost_usd"])),
            ("Per useful GPU-hour", usd(decision["usd_per_useful_hour"]["p50"]), "",
             spread_usd(decision["usd_per_useful_hour"])),
            ("Sure of it", sure, "", "Share of the resampled sets of worlds in which it is the least regretted."),
        ]
    )  # fmt: skip
    st.write(plain(decision_words(document)))
    if undone_words(document):
        st.write(plain(undone_words(document)))
    tables = plan_html.tables(document)
    shell.chart(
        plan_figures.options(document), tables["options"], "options",
        alt="Cost of each option and what it leaves undone or late, at the median with P10 to P90",
    )  # fmt: skip
    with st.expander("Why not the others"):
        others(document)
    for name, title, alt in (
        ("waterfall", "From bought to useful", "From device-hours bought to device-hours useful"),
        ("milestones", "Deadlines", "How likely each option meets each deadline"),
        ("tornado", "What matters most", "What each assumption does alone to cost and shortage"),
        ("cash", "Cash by quarter", "Cash paid by quarter, with P10 to P90"),
    ):
        if not tables[name]:
            continue
        with st.expander(title):
            shell.chart(getattr(plan_figures, name)(document), tables[name], name, alt)
    if document["risks"]:
        with st.expander("Risks"):
            st.markdown("\n".join(f"- {plain(risk_words(risk))}" for risk in document["risks"]))
    with st.expander("Demand"):
        shell.table(
            [
                {
                    "programme": row["programme"],
                    "work": spread_count(row["work"], row["unit"]),
                    "deadline": row["deadline"] or "",
                }
                for row in document["demand"]
            ]
        )
    with st.expander("Every assumption with its source"):
        shell.table(
            [
                {
                    "assumption": name_words(row["name"]),
                    "P50 (P10 to P90)": _spread(row),
                    "unit": row["unit"],
                    "kind": row["kind"],
                    "date": row["date"],
                    "source": row["source"],
                }
                for row in document["register"]
            ]
        )
    if document["simulated"]:
        st.caption(plain(simulated_words(document)))
    with st.container(horizontal=True):
        downloads(document, case)


def _spread(row: dict) -> str:
    low, mid, high = (number_words(row[name]) for name in ("low", "mid", "high"))
    return mid if low == high else f"{mid} ({low} to {high})"


def downloads(document: dict, case: Case) -> None:
    """The report as a page and as text."""
    st.download_button(
        "Download report", partial(plan_html.plan_report, document), f"{case.name}.html", "text/html",
        on_click="ignore", key="download_report",
    )  # fmt: skip
    st.download_button(
        "Download as Markdown", partial(plan_markdown.markdown, document), f"{case.name}.md", "text/markdown",
        on_click="ignore", key="download_markdown",
    )  # fmt: skip


def others(document: dict) -> None:
    """Each option with what it costs and why it is not the choice."""
    shell.table(
        [
            {
                "option": row["name"],
                "cost": spread_usd(row["cost_usd"]),
                "short and late, priced": spread_usd(row["penalty_usd"]),
                "regret": round(row["regret"], 3),
                "why not": row["why_not"] or "the choice",
            }
            for row in document["options"]
        ]
        + [{"option": row["name"], "why not": "; ".join(row["why"])} for row in document["refused"]]
    )


def page() -> None:
    """The page from top to bottom."""
    found = shell.opened("demand", plan_knobs())
    if found is None:
        return
    case, scenario = found
    shell.title(scenario, "Buy, rent, lease or reserve: which capacity for this demand?")
    waiting.answer(case, "plan", partial(show, case=case))
    shell.foot(case, "plan", "--out plan")


page()
