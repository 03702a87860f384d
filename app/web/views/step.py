"""Step: how long one training step takes, why, and what changes when the plan does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from app import answers
from app.report import figures, html, search_figures
from app.report.terminal import (
    calibration_words,
    fit_words,
    has_tokens,
    interval_words,
    leading_inputs,
    not_tried_words,
    plan_words,
)
from app.report.tune import plan_words as found_words
from app.web import shell, waiting
from app.web.knobs import step_knobs
from app.web.state import Case, plain, resolve
from sim import units
from sim.spec.faults import ScenarioError


@st.cache_resource(max_entries=32, show_spinner=False)
def answer(case: Case) -> dict:
    """Document of a scenario with changes; simulated once, handed out without a copy and only read."""
    return answers.step(resolve(case))


@st.cache_resource(max_entries=2, show_spinner="Playing every task ...")
def timeline_figure(case: Case) -> object:
    """The chart of the ranks; what it is drawn from holds up to a hundred megabytes and is let go of."""
    return figures.timeline(answers.timeline(resolve(case)), figures.rank_names(answer(case)))


def report(case: Case) -> str:
    """The step's report, with what would change its answer."""
    return html.step_report(answer(case) | reasons(case), answers.timeline(resolve(case)))


@st.cache_data(max_entries=64, show_spinner="Trying other plans ...")
def reasons(case: Case) -> dict:
    """What would change the answer: a dozen more simulations, so asked for after the answer is on the page."""
    return answers.reasons(resolve(case))


def show(document: dict, before: dict | None, case: Case) -> None:
    """Four numbers and one chart; the rest one click away."""
    headline(document, before)
    sureness(document)
    shell.chart(
        figures.breakdown(document), document["parts"], "breakdown",
        alt="Where the time of one step goes: "
        + ", ".join(f"{row['words']} {units.format_percent(row['share_frac'])}" for row in document["parts"]),
    )  # fmt: skip
    if before is not None:
        _box("Why the answer moved", "moved", partial(moved, document, before))
    if document.get("run"):
        with st.expander("The whole run"):
            whole_run(document["run"])
    _box("Rank by rank", "ranks", partial(ranks, case))
    if document["memory"]["ranks"]:
        _box("Memory of a device", "memory", partial(memory, document))
    if document["kernels"]:
        words = "Layer by layer: what bounds each op, and which calibration it leans on"
        _box(words, "kernels", partial(kernels, document))


def _box(title: str, key: str, draw: Callable[[], None]) -> None:
    """A box whose contents are made only for who opens it."""
    box = st.expander(title, key=f"box:{key}", on_change="rerun")
    if box.open:
        with box:
            draw()


def ranks(case: Case) -> None:
    """What every pipeline rank does when: thousands of bars."""
    st.plotly_chart(
        timeline_figure(case), width="stretch", key="timeline",
        alt="Timeline of the pipeline ranks: passes and messages one after another",
    )  # fmt: skip


def memory(document: dict) -> None:
    """What fills a device of each pipeline rank."""
    rows = [
        {"rank": rank["rank"], "part": part, "bytes": size}
        for rank in document["memory"]["ranks"]
        for part, size in rank["parts_bytes"].items()
    ]
    shell.chart(
        figures.memory(document), rows, "memory",
        alt=f"Memory by part on each pipeline rank; the fullest holds "
        f"{units.format_bytes(document['memory']['worst_total_bytes'])}",
    )  # fmt: skip


def headline(document: dict, before: dict | None) -> None:
    """At most four numbers, one of them a word for what bounds the step."""
    cards = [
        ("Step time", units.format_seconds(document["step_time_s"], 4), _moved(document, before, "step_time_s"), None),
        ("Bound by", document["bound_by"], "", "The part of the machine that the step waits for most."),
    ]  # fmt: skip
    if document["utilisation"]:
        used = document["utilisation"][0]
        cards.append(("Peak used (MFU)", units.format_percent(used["frac"], 1), "", used["convention"]))
    unit = "tokens" if has_tokens(document) else "samples"
    rate = units.format_count(document[f"{unit}_per_s"], 4)
    cards.append((f"{unit.capitalize()}/s", rate, _moved(document, before, f"{unit}_per_s"), None))
    shell.metrics(cards)


def _moved(document: dict, before: dict | None, name: str) -> str:
    if before is None or not before[name] or document[name] == before[name]:
        return ""
    return f"{units.format_percent(document[name] / before[name] - 1, 1, sign=True)} against the scenario"


def sureness(document: dict) -> None:
    """How sure the number is, and what was measured."""
    if interval_words(document):
        st.caption(f"80 % interval from the calibration's own error: {interval_words(document)}.")
    for row in document["published"]:
        measured, predicted = (units.format_seconds(row[name], 4) for name in ("measured_s", "predicted_s"))
        told = f"Measured {measured}, predicted {predicted} ({row['error_pct']:+.1f} %)."
        st.caption(f"{told} {plain(row['source'])}")


def moved(document: dict, before: dict) -> None:
    """The parts of the step before and after, largest change first."""
    old = {row["words"]: row["seconds"] for row in before["parts"]}
    new = {row["words"]: row["seconds"] for row in document["parts"]}
    rows = sorted(
        ((new.get(name, 0.0) - old.get(name, 0.0), name) for name in old | new), key=lambda row: -abs(row[0])
    )
    shell.table(
        [
            {
                "part of the step": name,
                "before": units.format_seconds(old.get(name, 0.0), 3),
                "now": units.format_seconds(new.get(name, 0.0), 3),
                "difference, s": round(change, 4),
            }
            for change, name in rows
        ]
    )


def kernels(document: dict) -> None:
    """The costliest ops, what the datasheet alone would take, and what bounds each."""
    rows = [
        {
            "op": row["name"],
            "time": units.format_seconds(row["seconds"]),
            "bound by": row.get("roof", ""),
            "efficiency": row["efficiency_frac"],
            "median error of the fit, %": row["median_error_pct"],
            "leans on": calibration_words(row),
            "source": row["source"],
        }
        for row in sorted(document["kernels"], key=lambda row: -row["seconds"])
    ]
    shell.chart(
        figures.kernels(document), rows, "kernels",
        alt="The costliest ops of a micro-batch: the roofline's bound and what is lost above it",
        caption="Blue is the roofline: FLOP over peak or bytes over bandwidth, whichever is longer.",
    )  # fmt: skip


def why(document: dict) -> None:
    """What would change the answer: changes that gain, inputs that matter."""
    if document["suggestions"]:
        st.markdown("**What would gain**")
        shell.table([_change(row) for row in document["suggestions"]])
    if leading_inputs(document):
        st.markdown("**What matters most**")
        st.caption("How the step time moves where one input is 10 % better.")
        rows = leading_inputs(document, len(document["sensitivities"]))
        shell.table(
            [{"input": row["words"], "step time": f"{100 * row['change_frac']:+.1f} %"} for row in rows]
        )
    if document["not_tried"]:
        st.caption(not_tried_words(document))


def _change(row: dict) -> dict[str, str]:
    """A row of a table of changes, in words."""
    cells = {"change": row["words"]}
    if row["step_time_s"] is not None:
        cells["step time"] = units.format_seconds(row["step_time_s"], 4)
    if "gain_frac" in row:
        cells["gain"] = units.format_percent(row["gain_frac"], 1)
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
        f"{run_['steps']:,} steps in {wall}, {units.format_percent(run_['goodput_frac'], 1)} of it training that "
        "lasts (goodput)."
    )
    shell.table(
        [
            {
                "phase": row["words"],
                "time": units.format_seconds(row["seconds"]),
                "share": units.format_percent(row["share_frac"], 1),
            }
            for row in run_["phases"]
            if row["seconds"] > 0
        ]
    )


def plans(document: dict) -> None:
    """The search: a heat map of degrees, the best plans, and what was turned away."""
    shell.chart(
        search_figures.heat(document["heat"]), document["heat"], "heat",
        alt="Step time of the best plan that fits, by tensor and pipeline degree",
        caption="Closed form of the best plan that fits, for each pair of degrees; empty where none fits.",
    )  # fmt: skip
    if "plans" not in document:
        return
    st.caption(f"{document['searched']:,} plans searched, {document['fitting']:,} fit in memory.")
    if document["plans"]:
        shell.table(
            [
                {
                    "plan": found_words(row),
                    "step time": units.format_seconds(row["step_time_s"], 4),
                    "memory": units.format_bytes(row["memory_bytes"]),
                    "on the command line": " ".join(f"--set {text}" for text in row["set"]),
                }
                for row in document["plans"]
            ]
        )
    if document["rejected"]:
        shell.table(
            [{"turned away because": row["reason"], "plans": row["plans"]} for row in document["rejected"]]
        )


def page() -> None:
    """The page from top to bottom."""
    found = shell.opened("training", step_knobs())
    if found is None:
        return
    case, scenario = found
    shell.title(scenario, "How long is a training step, and what is it bound by?")
    try:
        document = answer(case)
        before = answer(Case(case.name, case.text, (), case.uploaded)) if case.changes else None
    except ScenarioError as error:
        shell.refusals(error)
        shell.foot(case)
        return
    if not document["memory"]["fits"]:
        st.error(f"Does not fit. {plain(fit_words(document))}")
    st.write(plain(plan_words(document)).capitalize() + ".")
    show(document, before, case)
    if document.get("fit_changes"):
        with st.expander("What makes it fit", expanded=True):
            shell.table([_change(row) for row in document["fit_changes"]])
    if st.toggle("What would change the answer", key="why", help="Tries a dozen other plans and inputs."):
        why(reasons(case))
    if st.toggle(
        "Search all plans", key="search", help="Every legal plan by closed form; the best simulated."
    ):
        waiting.answer(case, "search", plans)
    st.download_button(
        "Download report",
        partial(report, case),  # made only when asked for
        f"{case.name}.html",
        "text/html",
        on_click="ignore",
        key="download_report",
    )
    shell.foot(case)


page()
