"""Step: how long one training step takes, why, and what changes when the plan does."""

from __future__ import annotations

import streamlit as st

from app.report import figures, html
from app.report.terminal import (
    calibration_words,
    fit_words,
    has_tokens,
    interval_words,
    leading_inputs,
    not_tried_words,
    plan_words,
)
from app.web import state
from sim import run, units
from sim.results.step_tables import step_document
from sim.spec.faults import ScenarioError
from sim.spec.profiles import fits_for
from sim.spec.scenario import Scenario
from sim.training.explain import explain

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
    scenario = state.resolve(name, dict(changes))
    result = run(scenario)
    told = explain(result, fits_for(scenario.profile), again=False)
    return step_document(result) | told, result.timeline


@st.cache_data(max_entries=64, show_spinner="Trying other plans ...")
def reasons(name: str, changes: tuple[tuple[str, object], ...]) -> dict:
    """What would change the answer: a dozen more simulations, so asked for after the answer is on the page."""
    scenario = state.resolve(name, dict(changes))
    return explain(run(scenario), fits_for(scenario.profile))


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
    unit = "tokens" if has_tokens(document) else "samples"
    rate = units.format_count(document[f"{unit}_per_s"])
    columns[3 if document["utilisation"] else 2].metric(f"{unit.capitalize()}/s", rate)
    if interval_words(document):
        st.caption(f"80 % interval from the calibration's own error: {interval_words(document)}.")
    for row in document["published"]:
        measured, predicted = (units.format_seconds(row[name], 4) for name in ("measured_s", "predicted_s"))
        st.caption(f"Measured {measured}, predicted {predicted} ({row['error_pct']:+.1f} %). {row['source']}")
    st.plotly_chart(figures.breakdown(document), width="stretch", key="breakdown")
    if document.get("run"):
        with st.expander("The whole run"):
            whole_run(document["run"])
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


def why(document: dict) -> None:
    """What would change the answer: changes that fit, changes that gain, inputs that matter."""
    if document["fit_changes"]:
        with st.expander("What makes it fit", expanded=True):
            st.dataframe([_change(row) for row in document["fit_changes"]], hide_index=True)
    if document["suggestions"]:
        with st.expander("What would gain"):
            st.dataframe([_change(row) for row in document["suggestions"]], hide_index=True)
    if leading_inputs(document):
        with st.expander("What matters most"):
            st.caption("How the step time moves where one input is 10 % better.")
            rows = leading_inputs(document, len(document["sensitivities"]))
            st.dataframe(
                [{"input": row["words"], "step time": f"{100 * row['change_frac']:+.1f} %"} for row in rows],
                hide_index=True,
            )
    if document["not_tried"]:
        st.caption(not_tried_words(document))


def _change(row: dict) -> dict[str, str]:
    """A row of a table of changes, in words."""
    cells = {"change": row["words"]}
    if row["step_time_s"] is not None:
        cells["step time"] = units.format_seconds(row["step_time_s"], 4)
    if "gain_frac" in row:
        cells["gain"] = f"{row['gain_frac']:.1%}"
    if "memory_bytes" in row:
        cells["memory of a device"] = units.format_bytes(row["memory_bytes"])
    return cells | {"on the command line": row["set"]}


def whole_run(run_: dict) -> None:
    """The phases of a run of many steps."""
    if run_["wall_s"] is None:
        st.error("It never ends: failures undo work faster than it is done.")
        return
    wall = units.format_seconds(run_["wall_s"])
    st.write(
        f"{run_['steps']:,} steps in {wall}, {run_['goodput_frac']:.1%} of it training that lasts (goodput)."
    )
    st.dataframe(
        [
            {
                "phase": row["words"],
                "time": units.format_seconds(row["seconds"]),
                "share": f"{row['share_frac']:.1%}",
            }
            for row in run_["phases"]
            if row["seconds"] > 0
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
        document = document | reasons(name, tuple(sorted(changes.items())))
        why(document)
        st.download_button(
            "Download report",
            lambda: html.step_report(document, timeline),  # made only when asked for: it is megabytes
            f"{name}.html",
            "text/html",
            on_click="ignore",
        )
    st.code(state.command(name, changes), language="bash")


page()
