"""Step: how long one training step takes, why, and what changes when the plan does."""

from __future__ import annotations

import streamlit as st

from app.report import figures, html
from app.report.terminal import calibration_words, fit_words, plan_words
from app.web import state
from sim import run, units
from sim.results.step_tables import step_document
from sim.spec.faults import ScenarioError
from sim.spec.scenario import Scenario

KNOBS = {
    "training.plan.tensor": "Tensor parallel",
    "training.plan.pipeline": "Pipeline stages",
    "training.plan.micro_batch": "Micro-batch",
    "training.plan.virtual_stages": "Virtual stages",
    "training.global_batch": "Global batch (sequences)",
    "cluster.pools.0.nodes": "Nodes",
}


@st.cache_data(max_entries=64, show_spinner=False)
def answer(name: str, changes: tuple[tuple[str, object], ...]) -> tuple[dict, object]:
    """Document and timeline of a scenario with changes; the same question is simulated once."""
    result = run(state.resolve(name, dict(changes)))
    return step_document(result), result.timeline


def chosen() -> str:
    """The scenario picked, from the address bar first."""
    names = state.worked_examples()
    wanted = st.query_params.get("scenario", state.DEFAULT)
    if wanted not in names:
        st.warning(
            f"The address asks for scenario {wanted!r}, which does not ship; showing {state.DEFAULT!r}."
        )
        wanted = state.DEFAULT
    name = st.sidebar.selectbox("Scenario", names, index=names.index(wanted))
    if name != wanted:
        st.query_params.clear()
    st.query_params["scenario"] = name
    return name


def base_value(scenario: Scenario, path: str) -> int:
    """What the scenario itself says for one knob."""
    here: object = scenario
    for part in path.split("."):
        here = here[int(part)] if part.isdigit() else getattr(here, part)  # type: ignore[index]
    return int(here)  # type: ignore[call-overload]


def knobs(name: str, scenario: Scenario) -> dict[str, object]:
    """Number fields for the plan; returns what differs from the scenario and writes it to the address bar."""
    changes: dict[str, object] = {}
    for path, label in KNOBS.items():
        base = base_value(scenario, path)
        raw = st.query_params.get(path, str(base))
        if not raw.isdigit() or int(raw) < 1 or int(raw) > 10**9:
            st.warning(
                f"The address gives {label} = {raw!r}; expected a whole number from 1. Using {base:,}."
            )
            raw = str(base)
        value = st.sidebar.number_input(label, 1, 10**9, int(raw), key=f"{name}:{path}")
        if value != base:
            changes[path] = int(value)
            st.query_params[path] = str(value)
        elif path in st.query_params:
            del st.query_params[path]
    return changes


def show(document: dict, timeline: object) -> None:
    """Four numbers and one chart; the rest one click away."""
    columns = st.columns(4)
    columns[0].metric("Step time", units.format_seconds(document["step_time_s"], 4))
    columns[1].metric("Bound by", document["bound_by"])
    if document["utilisation"]:
        columns[2].metric(
            "MFU", f"{document['utilisation'][0]['frac']:.1%}", help=document["utilisation"][0]["convention"]
        )
        columns[3].metric("Tokens/s", units.format_count(document["tokens_per_s"]))
    else:
        columns[2].metric("Samples/s", units.format_count(document["samples_per_s"]))
    for row in document["published"]:
        measured, predicted = (units.format_seconds(row[name], 4) for name in ("measured_s", "predicted_s"))
        st.caption(f"Measured {measured}, predicted {predicted} ({row['error_pct']:+.1f} %). {row['source']}")
    st.plotly_chart(figures.breakdown(document), width="stretch", key="breakdown")
    with st.expander("Rank by rank"):
        st.plotly_chart(figures.timeline(timeline), width="stretch", key="timeline")
    if document["memory"]["ranks"]:
        with st.expander("Memory of a device"):
            st.plotly_chart(figures.memory(document), width="stretch", key="memory")
    if document["kernels"]:
        with st.expander("What a micro-batch costs, and which calibration that leans on"):
            st.plotly_chart(figures.kernels(document), width="stretch", key="kernels")
            st.dataframe(
                [
                    {
                        "op": row["name"],
                        "time": units.format_seconds(row["seconds"]),
                        "efficiency": row["efficiency_frac"],
                        "median error of the fit, %": row["median_error_pct"],
                        "leans on": calibration_words(row),
                    }
                    for row in document["kernels"]
                ],
                hide_index=True,
            )


def page() -> None:
    """The page from top to bottom."""
    name = chosen()
    scenario = state.resolve(name, {})
    changes = knobs(name, scenario)
    st.title(scenario.name)
    st.caption(scenario.shows)
    try:
        document, timeline = answer(name, tuple(sorted(changes.items())))
    except ScenarioError as error:
        for fault in error.faults:
            st.error(f"`{fault.path}`: {fault.expected}")
    else:
        if not document["memory"]["fits"]:
            st.error(f"Does not fit. {fit_words(document)}")
        st.write(plan_words(document).capitalize() + ".")
        show(document, timeline)
        st.download_button(
            "Download report",
            lambda: html.step_report(document, timeline),  # made only when asked for: it is megabytes
            f"{name}.html",
            "text/html",
            on_click="ignore",
        )
    st.code(state.command(name, changes), language="bash")


page()
