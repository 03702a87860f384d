"""Compare: scenarios side by side, what differs between them, and how sure the difference is."""

from __future__ import annotations

import streamlit as st

from app import answers
from app.report import figures
from app.report.compare import comparison_report, difference_words, rows
from app.web import shell, state
from app.web.knobs import step_knobs
from app.web.state import Case, plain
from sim.spec.faults import ScenarioError

# Two cases that the page opens on while the tray is empty.
OPENS_ON = (
    state.DEFAULT,
    f"{state.DEFAULT};training.plan.recompute=selective",
)


@st.cache_data(max_entries=16, show_spinner="Running each ...")
def compared(cases: tuple[Case, ...]) -> dict:
    """The comparison of cases against the first."""
    return answers.side_by_side([state.resolve(case) for case in cases])


def chosen() -> dict[str, Case]:
    """The cases by label: of the address, else of the tray, else two to begin with."""
    allowed = [knob.path for knob in step_knobs()]
    kept = {label: case for label, case in shell.tray().items() if "training" in state.sections(case)}
    found: dict[str, Case] = {}
    for text in st.query_params.get_all("case"):
        try:
            case = state.unpacked(text, allowed)
            found[case.words(state.title_of(case.name))] = case
        except ScenarioError as error:
            shell.refusals(error)
    if not found and not kept:
        st.info("The tray is empty: keep scenarios on the Step page to compare them. Two to begin with:")
        for text in OPENS_ON:
            case = state.unpacked(text, allowed)
            found[case.words(state.title_of(case.name))] = case
    everything = found | kept
    labels = st.multiselect(
        "Scenarios; the first is what the others are held against",
        list(everything),
        default=list(everything)[: shell.TRAY],
        max_selections=shell.TRAY,
        key=f"cases:{len(everything)}",
    )
    if len(shell.tray()) > len(kept):
        st.caption("Kept clusters and plans have no step to compare; open them on their own pages.")
    if shell.tray() and st.button("Empty the tray", key="empty"):
        shell.tray().clear()
        st.query_params.clear()
        st.rerun()
    return {label: everything[label] for label in labels}


def show(document: dict, cases: dict[str, Case]) -> None:
    """Differences first, then inputs that differ, then every figure."""
    names = [chr(65 + place) for place in range(len(cases))]
    st.caption(plain("; ".join(f"{name}: {label}" for name, label in zip(names, cases, strict=True))))
    for name, row, outcome in zip(names, document["step_time"], document["outcomes"], strict=True):
        if outcome["outcome"] == "does not fit":
            st.error(f"{name} does not fit: {plain(outcome['reason'])}")
        if name != "A":
            st.markdown(f"**{name}** against A: step {plain(difference_words(row))}.")
    parts = [
        {"part": part["words"], **dict(zip(names, part["seconds"], strict=True))}
        for part in document["parts"]
    ]
    shell.chart(
        figures.parts_side_by_side(names, document["parts"]), parts, "parts",
        alt="Where the time of each scenario's step goes, a bar each",
    )  # fmt: skip
    st.markdown("**Inputs that differ**")
    if document["changed"]:
        st.dataframe(
            [
                {"input": row["path"]}
                | {name: "" if v is None else str(v) for name, v in zip(names, row["values"], strict=True)}
                for row in document["changed"]
            ],
            hide_index=True,
        )
    else:
        st.write("No input differs.")
    st.markdown("**Figures**")
    table = []
    for row in rows(document):
        cells = {"figure": row["words"]}
        for name, value, change in zip(names, row["values"], row["changes"], strict=True):
            cells[name] = f"{value} ({change})" if change else value
        table.append(cells)
    st.dataframe(table, hide_index=True)
    st.download_button(
        "Download report", lambda: comparison_report(document), "comparison.html", "text/html",
        on_click="ignore", key="download_report",
    )  # fmt: skip


def command(cases: list[Case]) -> str:
    """The same on the command line; a single file with changes takes --set-a and --set-b."""
    if len(cases) == 2 and cases[0].file == cases[1].file:
        sides = [
            f"--set-{side} {item}" for side, case in zip("ab", cases, strict=True) for item in case.overrides
        ]
        return " ".join([f"rackcast compare {cases[0].file}", *sides])
    if any(case.changes for case in cases):
        files = " ".join(f"{chr(97 + place)}.toml" for place in range(len(cases)))
        return f"rackcast compare {files}   # each downloaded from its own page"
    return "rackcast compare " + " ".join(case.file for case in cases)


def page() -> None:
    """The page from top to bottom."""
    st.title("Compare")
    cases = chosen()
    if len(cases) < 2:
        st.warning("Choose at least two scenarios.")
        return
    linked = [state.packed(case) for case in cases.values() if not case.uploaded]
    st.query_params["case"] = linked
    try:
        document = compared(tuple(cases.values()))
    except ScenarioError as error:
        shell.refusals(error)
    else:
        show(document, cases)
    st.divider()
    st.caption("The same on the command line")
    st.code(command(list(cases.values())), language="bash")


page()
