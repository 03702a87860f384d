"""Compare: scenarios side by side, what differs between them, and how sure the difference is."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import answers
from app.report.compare import letters
from app.web import shell, side_by_side, state, waiting
from app.web.knobs import cluster_knobs, plan_knobs, step_knobs
from app.web.state import Case
from sim.spec.faults import ScenarioError

# Section of a scenario -> what its answers are called, its knobs, and two cases that the page opens on while the tray
# holds none of the kind.
KINDS = {
    "training": ("Steps", step_knobs, (state.DEFAULT, f"{state.DEFAULT};training.plan.recompute=selective")),
    "jobs": ("Clusters", cluster_knobs, ("cluster-notebooks-whole", "cluster-notebooks-shared")),
    "demand": ("Plans", plan_knobs, ("plan-rent-or-buy", "plan-rent-or-buy;prices.energy_usd_per_kwh=0.3")),
}


@st.cache_data(max_entries=16, show_spinner="Running each ...")
def compared(cases: tuple[Case, ...]) -> dict:
    """The comparison of steps against the first."""
    return answers.side_by_side([state.resolve(case) for case in cases])


def chosen_kind() -> str:
    """Steps, clusters or plans: of the address, else of what was kept last."""
    kept = [section for case in shell.tray().values() for section in KINDS if section in state.sections(case)]
    raw = st.query_params.get("kind", kept[-1] if kept else "training")
    if raw not in KINDS:
        st.warning(f"The address asks for kind {state.plain(repr(raw))}; expected one of {', '.join(KINDS)}.")
        raw = "training"
    kind = st.segmented_control(
        "What", list(KINDS), default=raw, format_func=lambda one: KINDS[one][0], key="kind",
        label_visibility="collapsed",
    ) or raw  # fmt: skip
    if kind != raw:
        st.query_params.clear()
    st.query_params["kind"] = kind
    return str(kind)


def chosen(kind: str) -> dict[str, Case]:
    """The cases by label: of the address, else of the tray, else two to begin with."""
    _, knobs, opens_on = KINDS[kind]
    allowed = [knob.path for knob in knobs()]
    kept = {label: case for label, case in shell.tray().items() if kind in state.sections(case)}
    found: dict[str, Case] = {}
    for text in st.query_params.get_all("case"):
        try:
            case = state.unpacked(text, allowed)
        except ScenarioError as error:
            shell.refusals(error)
            continue
        if kind in state.sections(case):
            found[case.words(state.title_of(case.name))] = case
        else:
            st.warning(f"The address asks for {state.plain(text)}, which has no [{kind}]: left out.")
    if not found and not kept:
        st.info("The tray is empty: keep scenarios on their pages to compare them. Two to begin with:")
        for text in opens_on:
            case = state.unpacked(text, allowed)
            found[case.words(state.title_of(case.name))] = case
    everything = found | kept
    labels = st.multiselect(
        "Scenarios; the first is what the others are held against",
        list(everything),
        default=list(everything)[: shell.TRAY],
        max_selections=shell.TRAY,
        key=f"cases:{kind}:{len(everything)}",
    )
    if shell.tray() and st.button("Empty the tray", key="empty"):
        shell.tray().clear()
        st.query_params.clear()
        st.rerun()
    return {label: everything[label] for label in labels}


def command(cases: list[Case]) -> str:
    """The same on the command line; a single file with changes takes --set-a and --set-b."""
    if len(cases) == 2 and cases[0].file == cases[1].file:
        sides = [
            f"--set-{side} {state.quoted(item)}"
            for side, case in zip("ab", cases, strict=True)
            for item in case.overrides
        ]
        return " ".join([f"rackcast compare {cases[0].file}", *sides])
    if any(case.changes for case in cases):
        files = " ".join(f"{chr(97 + place)}.toml" for place in range(len(cases)))
        return f"rackcast compare {files}   # each downloaded from its own page"
    return "rackcast compare " + " ".join(case.file for case in cases)


def show(kind: str, cases: dict[str, Case]) -> None:
    """Steps at once; clusters and plans from a worker."""
    names = letters(len(cases))
    side_by_side.legend(names, list(cases))
    if kind == "training":
        try:
            document = compared(tuple(cases.values()))
        except ScenarioError as error:
            shell.refusals(error)
            return
        side_by_side.steps(document, names)
        return
    verb, face = {
        "jobs": ("compare clusters", side_by_side.clusters),
        "demand": ("compare plans", side_by_side.plans),
    }[kind]
    first, *others = cases.values()
    waiting.answer(
        first, verb, partial(face, names=names), others=[waiting.asked_of(case) for case in others]
    )


def page() -> None:
    """The page from top to bottom."""
    st.title("Compare")
    kind = chosen_kind()
    cases = chosen(kind)
    if len(cases) < 2:
        st.warning("Choose at least two scenarios.")
        return
    st.query_params["case"] = [state.packed(case) for case in cases.values() if not case.uploaded]
    show(kind, cases)
    st.divider()
    st.caption("The same on the command line")
    st.code(command(list(cases.values())), language="bash", wrap_lines=True)


page()
