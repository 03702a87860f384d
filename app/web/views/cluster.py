"""Cluster: what users of a cluster wait for, where the device-hours go, and what failures cost."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app.report import cluster_figures, cluster_html
from app.report.cluster_words import answer_words, sureness_words, value_words, verdict_words
from app.web import shell, waiting
from app.web.knobs import cluster_knobs
from app.web.state import Case, plain
from sim import units

# Answers on the cards; the rest is one click away.
HEADLINE = {
    "p95_wait_s": "95 % wait less than",
    "utilisation_frac": "Devices held",
    "goodput_frac": "Lasting work",
}


def show(document: dict, case: Case) -> None:
    """Four numbers, one chart; the rest one click away."""
    known = {row["name"]: row for row in document["answers"]}
    cards = [
        (label, value_words(known[name]["mean"], known[name]["unit"]), "", f"{known[name]['words']}: "
         f"{answer_words(known[name])}, 95 % interval of the mean")
        for name, label in HEADLINE.items()
    ]  # fmt: skip
    shell.metrics([("Verdict", document["verdict"]["word"], "", None), *cards])
    st.write(plain(verdict_words(document)))
    st.caption(sureness_words(document))
    shell.chart(
        cluster_figures.books(document), document["books"], "books",
        alt="Where every device-hour went: "
        + ", ".join(f"{row['words']} {units.format_percent(row['share_frac'], 1)}" for row in document["books"]),
    )  # fmt: skip
    with st.expander("All answers with their intervals"):
        shell.table(
            [
                {"answer": row["words"], "mean (95 % interval)": answer_words(row)}
                for row in document["answers"]
            ]
        )
    with st.expander("Over time"):
        shell.chart(
            cluster_figures.over_time(document), document["series"], "series",
            alt="Devices held and jobs waiting over the days of the first replication",
        )  # fmt: skip
    if document["by_size"]:
        with st.expander("Who waits"):
            shell.chart(
                cluster_figures.waits_by_size(document), document["by_size"], "waits",
                alt="Mean and 95 % wait by the devices of a gang",
            )  # fmt: skip
            for title, rows in (("queue", document["by_queue"]), ("user", document["by_user"])):
                shell.table([_group(title, row) for row in rows])
    with st.expander("Node by time"):
        nodes = document["nodes"]
        rows = [
            {"node": number, "time_s": time, "held_frac": held, "down": down}
            for number, (helds, downs) in enumerate(zip(nodes["held"], nodes["down"], strict=True))
            for time, held, down in zip(nodes["time_s"], helds, downs, strict=True)
        ]
        shell.chart(
            cluster_figures.node_map(document), rows, "nodes",
            alt="Share of each node held over time; nodes out of service stand out",
            caption="Blue: held; light: idle; orange: out of service.",
        )  # fmt: skip
    with st.expander(f"Failure log ({document['outages_total']:,} outages)"):
        failures(document)
    with st.expander("What it rests on"):
        shell.table(document["inputs"])
    st.download_button(
        "Download report", partial(cluster_html.cluster_report, document), f"{case.name}.html", "text/html",
        on_click="ignore", key="download_report",
    )  # fmt: skip


def _group(title: str, row: dict) -> dict[str, str]:
    cells = {title: str(row["name"]), "jobs": f"{row['jobs']:,.4g}" if "jobs" in row else ""}
    for key, words in (("mean_wait_s", "mean wait"), ("p95_wait_s", "95 % wait less than")):
        cells[words] = units.format_seconds(row[key])
    return cells


def failures(document: dict) -> None:
    """Nodes that went out of service in the first replication."""
    if not document["outages"]:
        st.write("No node went out of service in the first replication.")
        return
    shell.table(
        [
            {
                "day": round(row["start_s"] / 86400, 2),
                "node": row["node"],
                "cause": row["cause"],
                "hours": round(row["hours"], 2),
            }
            for row in document["outages"]
        ]
    )
    if len(document["outages"]) < document["outages_total"]:
        st.caption(f"The first {len(document['outages'])} of {document['outages_total']:,}.")


def page() -> None:
    """The page from top to bottom."""
    found = shell.opened("jobs", cluster_knobs())
    if found is None:
        return
    case, scenario = found
    shell.title(scenario, "What do users of this cluster wait for, and where do its device-hours go?")
    waiting.answer(case, "cluster", partial(show, case=case))
    shell.foot(case)


page()
