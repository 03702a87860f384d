"""A page that waits for a worker: progress, what there is so far, and a way to call it off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app.web.jobs import Job, Office
from app.web.state import Case, plain

EVERY_S = 1.0
"""How often a running simulation is looked at."""
AT_ONCE_S = 0.2
"""Answers that are there within this appear without a progress bar."""


@st.cache_resource(show_spinner=False)
def office() -> Office:
    """The server's one office of simulations."""
    return Office()


def _me() -> str:
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    context = get_script_run_ctx()
    return context.session_id if context is not None else "alone"


def ask(case: Case, verb: str, **more: Any) -> Job | None:
    """The job that answers a case; a question that replaces an earlier one of this page calls that off.

    None where the visitor called this very question off.
    """
    request = {"verb": verb, **asked_of(case), **more}
    asked: dict[str, tuple[dict[str, Any], Job]] = st.session_state.setdefault("asked", {})
    earlier = asked.get(verb)
    if earlier is not None and earlier[0] != request:
        office().leave(earlier[1], _me())
    if earlier is None or earlier[0] != request:
        st.session_state.setdefault("called_off", set()).discard(verb)
        asked[verb] = (request, office().ask(request, _me()))
    return None if verb in st.session_state.get("called_off", set()) else asked[verb][1]


def asked_of(case: Case) -> dict[str, Any]:
    """A case as a worker reads it."""
    return {
        "name": case.name,
        "text": case.text,
        "changes": [list(change) for change in case.changes],
        "uploaded": case.uploaded,
    }


def _call_off(verb: str, job: Job) -> None:
    office().leave(job, _me())
    st.session_state.setdefault("called_off", set()).add(verb)


def _again(verb: str) -> None:
    st.session_state.get("asked", {}).pop(verb, None)


def answer(case: Case, verb: str, show: Callable[[dict[str, Any]], None], **more: Any) -> None:
    """Ask, and show the answer: what there is so far while it runs, the whole when it is done."""
    job = ask(case, verb, **more)
    if job is None:
        st.info("Called off." + ("" if _last(verb) is None else " This is what was known by then."))
        st.button("Run again", on_click=_again, args=(verb,), key=f"again:{verb}")
        if (document := _last(verb)) is not None:
            show(document)
        return
    if not job.over:
        job.wait(AT_ONCE_S)
    if not job.over:
        _running(job, verb, job.share)
    elif job.state == "refused":
        for told in job.refused:
            st.error(plain(told))
        return
    if job.document is not None:
        if not job.over:
            st.caption("First look, from few runs; the numbers settle when the simulation is done.")
        show(job.document)


def _last(verb: str) -> dict[str, Any] | None:
    asked = st.session_state.get("asked", {}).get(verb)
    return asked[1].document if asked else None


@st.fragment(run_every=EVERY_S)
def _running(job: Job, verb: str, shown: float) -> None:
    """The bar, once a second; the whole page again when there is more to show."""
    if job.over or job.share != shown:
        st.rerun()
    words = "Waiting for a free place" if job.state == "waiting" else "Simulating"
    left, right = st.columns([5, 1], vertical_alignment="center")
    # the work that is left is not known beforehand; the bar nears the next stage without passing it
    moved = job.share + (0.95 - job.share) * job.seconds / (job.seconds + 20.0)
    left.progress(min(moved, 0.99), text=f"{words} ... {job.seconds:.0f} s")
    right.button("Cancel", on_click=_call_off, args=(verb, job), key=f"cancel:{verb}")
