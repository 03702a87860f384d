"""What every page has: the scenario picker, upload, knobs, tray, link, command, and a chart with its numbers.

The frame of a window: the same on every side, so that one looks through it and not at it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app.web import state
from app.web.state import Case, plain
from sim.spec.faults import ScenarioError
from sim.spec.scenario import Scenario

MOST_UPLOAD_MB = 64
"""What the browser may send; the loader's own limit is far lower, and refuses in words."""
MOST_ROWS = 40
"""Of a table that is written out, so that its words wrap and a screen reader finds them; a longer one scrolls."""
PAINT_S = 0.15
"""A few frames of a browser: without it the first numbers wait for the script of the charts, a second and more."""
TRAY = 9
"""Scenarios that are kept to compare: as many columns as the command line takes."""


@dataclass(frozen=True, slots=True)
class Knob:
    """One input that a page offers to change; ``path`` is where it is in the scenario and in the link."""

    path: str
    label: str
    low: float = 1
    high: float = 10**9
    whole: bool = True
    options: tuple[str, ...] = ()
    """Words to choose from; then it is no number."""
    unit: str = ""
    """Written behind the number in the scenario."""
    scale: float = 1.0
    """What one unit is in SI."""
    help: str | None = None
    base: Callable[[Scenario], Any] | None = None
    """The scenario's own value where it is not simply at ``path``; None = the knob is not offered."""


def title(scenario: Scenario, question: str = "") -> None:
    """What the page answers, name and sentence of the scenario."""
    if question:
        st.caption(f"**{question}** The inputs are in the sidebar: change one and see the answer move.")
    st.title(plain(scenario.name))
    if scenario.shows:
        st.caption(plain(scenario.shows))


def opened(section: str, knobs: Sequence[Knob]) -> tuple[Case, Scenario] | None:
    """The scenario that a page is about, with its changes, from the address, the sidebar, or an upload.

    Whatever is refused is shown; None where nothing is left to show.
    """
    case = _picked(section)
    if case is None:
        return None
    try:
        base = state.resolve(case)
    except ScenarioError as error:
        refusals(error)
        return None
    changes = _changes(case, base, knobs)
    changed = Case(case.name, case.text, state.as_changes(changes), case.uploaded)
    try:
        scenario = state.resolve(changed)
    except ScenarioError as error:
        title(base)
        refusals(error)
        foot(changed)
        return None
    _keep(changed, scenario)
    return changed, scenario


def refusals(error: ScenarioError) -> None:
    """Every fault in the words of the command line, beside the field's name."""
    for fault in error.faults:
        seen = "" if fault.value is None else f" = {str(fault.value)[:60]}"
        head = fault.path + seen if fault.path else fault.file
        st.error(f"**{plain(head)}**: {plain(fault.expected)}")


def enter(page: str) -> None:
    """Before a page runs: one that is come back to has the state it was left in; a link's own words go first."""
    kept, last = st.session_state.setdefault("kept", {}), st.session_state.get("page")
    st.session_state["page"] = page
    if last == page:
        return
    if last is not None and _address() == kept.get(last):
        st.query_params.clear()  # the words of the page that was left
    if not st.query_params and page in kept:
        st.query_params.from_dict(kept[page])


def remember(page: str) -> None:
    """After a page ran: keep what its address says."""
    st.session_state["kept"][page] = _address()


def _address() -> dict[str, list[str]]:
    return {name: st.query_params.get_all(name) for name in st.query_params}


def _picked(section: str) -> Case | None:
    names = state.worked_examples(section)
    wanted = st.query_params.get("scenario", state.FIRST[section])
    above = st.sidebar.container()  # the picker; it needs what is uploaded below it
    _upload(section)
    own: Case | None = st.session_state.get("upload")
    if own is not None and section not in state.sections(own):
        own = None
    if own is not None:
        names = [state.UPLOADED, *names]
        if st.session_state.pop("just_uploaded", False):
            wanted = state.UPLOADED
            st.session_state.pop(f"scenario:{section}", None)
    if wanted not in names:
        told = (
            "an uploaded scenario, which no link can carry: upload it again"
            if wanted == state.UPLOADED
            else f"scenario {plain(repr(wanted))}, which is none of this page's"
        )
        st.warning(f"The address asks for {told}. Showing {plain(state.title_of(state.FIRST[section]))}.")
        wanted = state.FIRST[section]
        st.query_params.clear()
    label = {state.UPLOADED: f"Uploaded: {own.name}" if own else ""}
    name = above.selectbox(
        "Scenario",
        names,
        index=names.index(wanted),
        format_func=lambda one: label.get(one, state.title_of(one)),
        key=f"scenario:{section}",
    )
    if name != wanted:
        st.query_params.clear()
    st.query_params["scenario"] = name
    return own if name == state.UPLOADED else state.shipped(name)


def _upload(section: str) -> None:
    """A file of the user's: checked whole, and refused in words."""
    with st.sidebar.expander("Your own scenario"):
        sent = st.file_uploader(
            "Scenario file (TOML)",
            key=f"upload:{section}",
            max_upload_size=MOST_UPLOAD_MB,
            help="Checked like a file on the command line. It stays in this session and may name no other file.",
        )
    if sent is None or st.session_state.get("seen_upload") == sent.file_id:
        if sent is not None and (error := st.session_state.get("upload_error")):
            refusals(error)
        return
    st.session_state["seen_upload"] = sent.file_id
    st.session_state["upload_error"] = None
    try:
        case = state.uploaded_case(sent.getvalue(), sent.name)
    except ScenarioError as error:
        st.session_state["upload_error"] = error
        refusals(error)
        return
    st.session_state["upload"] = case
    if section in state.sections(case):
        st.session_state["just_uploaded"] = True
    else:
        found = ", ".join(sorted(state.sections(case) & set(state.FIRST)))
        st.warning(f"{plain(case.name)} has no [{section}]; it has [{found}]: open the page for that.")


def _value_at(scenario: Scenario, path: str) -> Any:
    """What the scenario itself says; None where it has no such part."""
    here: Any = scenario
    for part in path.split("."):
        here = next(iter(here[int(part) :]), None) if part.isdigit() else getattr(here, part, None)
        if here is None:
            return None
    return getattr(here, "key", here)


def _changes(case: Case, base: Scenario, knobs: Sequence[Knob]) -> dict[str, object]:
    """Fields for the knobs; what differs from the scenario goes to the address."""
    changes: dict[str, object] = {}
    known = {knob.path for knob in knobs} | {"scenario"}
    for name in [name for name in st.query_params if name not in known]:
        st.warning(f"The address changes {plain(name)}, which this page does not offer: left out.")
        del st.query_params[name]
    with st.sidebar.expander("What if", expanded=True):
        for knob in knobs:
            own = knob.base(base) if knob.base else _value_at(base, knob.path)
            if own is None:
                if knob.path in st.query_params:
                    st.warning(f"The address changes {knob.label}, which this scenario does not have.")
                continue
            made = _choice(case, knob, str(own)) if knob.options else _number(case, knob, own)
            if made is not None:
                changes[knob.path] = f"{made}{knob.unit}" if knob.unit else made
                st.query_params[knob.path] = str(made)
            elif knob.path in st.query_params:
                del st.query_params[knob.path]
    return changes


def _choice(case: Case, knob: Knob, own: str) -> str | None:
    options = [*([own] if own not in knob.options else []), *knob.options]
    raw = st.query_params.get(knob.path, own)
    if raw not in options:
        st.warning(
            f"The address gives {knob.label} = {plain(repr(raw))}; expected one of the list. Using {plain(own)}."
        )
        raw = own
    value = st.selectbox(
        knob.label, options, index=options.index(raw), key=f"{case.name}:{knob.path}", help=knob.help
    )
    return None if value == own else str(value)


def _number(case: Case, knob: Knob, own: float) -> int | float | None:
    kind: Callable[[Any], Any] = int if knob.whole else float
    base = kind(round(own / knob.scale, 6))
    raw = st.query_params.get(knob.path, str(base))
    try:
        value = kind(raw)
        good = knob.low <= value <= knob.high
    except ValueError:
        good = False
    if not good:
        what = "a whole number" if knob.whole else "a number"
        told = f"expected {what} from {knob.low:g} to {knob.high:,.4g}. Using {base:,}"
        st.warning(f"The address gives {knob.label} = {plain(repr(raw))}; {told}.")
        value = base
    low, high = kind(min(knob.low, base)), kind(max(knob.high, base))
    chosen = st.number_input(
        knob.label, low, high, value, key=f"{case.name}:{knob.path}", help=knob.help,
        step=None if knob.whole else max(abs(base) / 10, 0.01), format=None if knob.whole else "%g",
    )  # fmt: skip
    return None if chosen == base else kind(chosen)


def tray() -> dict[str, Case]:
    """The scenarios that this session keeps to compare, by label."""
    kept: dict[str, Case] = st.session_state.setdefault("tray", {})
    return kept


def _keep(case: Case, scenario: Scenario) -> None:
    """The tray in the sidebar."""
    kept, label = tray(), case.words(scenario.name)
    with st.sidebar:
        if st.button(
            "Keep to compare",
            key="keep",
            disabled=label in kept or len(kept) >= TRAY,
            help="Puts this scenario with its changes into the tray; the Compare page shows the tray side by side.",
        ):
            kept[label] = case
            st.rerun()
        if kept:
            count = f"{len(kept)} scenario{'s' * (len(kept) > 1)} kept"
            st.caption(f"{count} to compare: {plain('; '.join(kept))}")


def foot(case: Case, verb: str = "run", *options: str) -> None:
    """The equivalent command, and the scenario as a file."""
    st.divider()
    st.caption("The same on the command line")
    st.code(state.command(case, verb, *options), language="bash", wrap_lines=True)
    st.download_button(
        "Download scenario (TOML)",
        state.toml_text(case),
        f"{case.name.removesuffix('.toml')}.toml",
        "application/toml",
        on_click="ignore",
        key="download_toml",
    )


def chart(
    figure: go.Figure, rows: Sequence[dict[str, Any]] | pd.DataFrame, name: str, alt: str, caption: str = ""
) -> None:
    """A chart with a text alternative, and its numbers as a table and CSV."""
    _numbers_first()
    st.plotly_chart(
        figure, width="stretch", key=name, alt=alt, config={"displayModeBar": False, "responsive": True}
    )
    if caption:
        st.caption(caption)
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    with st.popover("Numbers (CSV)", key=f"numbers:{name}"):
        st.dataframe(table.head(500), hide_index=True)
        st.download_button(
            "Download CSV",
            lambda: table.to_csv(index=False),
            f"{name}.csv",
            "text/csv",
            on_click="ignore",
            key=f"csv:{name}",
        )


def _numbers_first() -> None:
    """Once a session: the browser paints what it has before it is handed the charts' script of 5 MB to read."""
    if "numbers_painted" not in st.session_state:
        st.session_state["numbers_painted"] = True
        time.sleep(PAINT_S)


def table(rows: Sequence[dict[str, Any]]) -> None:
    """A table: written out where it is short, the first column as the head of each row."""
    if len(rows) > MOST_ROWS:
        st.dataframe(rows, hide_index=True)
    elif rows:
        written = pd.DataFrame([{name: _cell(value) for name, value in row.items()} for row in rows])
        st.table(written.fillna("").set_index(written.columns[0]))


def _cell(value: Any) -> str:
    """A value as text that no Markdown is made of."""
    if value is None:
        return ""
    return plain(f"{value:.4g}" if isinstance(value, float) else value)


def metrics(cards: Sequence[tuple[str, str, str, str | None]]) -> None:
    """At most four numbers: label, value, change against the scenario as it was, help."""
    with st.container(horizontal=True, gap="medium"):  # two a row on a phone
        for label, value, delta, told in cards:
            st.metric(label, value, delta or None, delta_color="off", help=told, width="content")
