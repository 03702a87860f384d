"""Validation: what was predicted against what was measured, row by row."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import calibration
from app.report import validation_figures
from app.web import shell
from app.web.state import plain
from sim.units import format_percent

FILTERS = {"gpu": "GPU", "model": "Model or system", "stack": "Stack or engine", "source": "Source"}
COMMANDS = {"training": "training", "collectives": "collectives"}
FILES = {"memory_bound": "memory_measured", "moe": "moe_kernel", "training": "training_runs"}


def chosen_kind() -> str | None:
    """Which table, from the address first."""
    kinds = calibration.kinds()
    if not kinds:
        st.info("There is no row table yet: `python -m benchmarks.accuracy` writes it from a checkout.")
        return None
    raw = st.query_params.get("kind", kinds[0])
    if raw not in kinds:
        st.warning(f"The address asks for {plain(repr(raw))}; expected one of {', '.join(kinds)}.")
        raw = kinds[0]
    kind = (
        st.segmented_control("What", kinds, default=raw, format_func=calibration.KINDS.get, key="kind") or raw
    )
    if kind != raw:
        st.query_params.clear()
    st.query_params["kind"] = kind
    return str(kind)


def filtered(kind: str) -> pd.DataFrame:
    """The rows that the filters leave."""
    table = calibration.points(kind)
    for place, (column, label) in zip(st.columns(len(FILTERS)), FILTERS.items(), strict=True):
        known = sorted(name for name in table[column].unique() if name)
        asked = st.query_params.get_all(column)
        if refused := [name for name in asked if name not in known]:
            st.warning(
                f"The address filters {label} by {plain(', '.join(map(repr, refused)))}: not in this table."
            )
        default = [name for name in asked if name in known]
        wanted = place.multiselect(label, known, default=default, key=f"{kind}:{column}")
        if wanted:
            table = table[table[column].isin(wanted)]
            st.query_params[column] = wanted
        elif column in st.query_params:
            del st.query_params[column]
    return table


def show(table: pd.DataFrame, kind: str) -> None:
    """At most four numbers, one chart; errors by group one click away."""
    held = st.toggle(
        "Held out", value=True, key="held",
        help="Each row predicted by a fit that never saw its source, system or shape; else by the shipped profile.",
    )  # fmt: skip
    predicted, error = ("held_out_s", "held_out_error_pct") if held else ("predicted_s", "error_pct")
    told = calibration.errors(table)
    if told[f"{error}_median"] is None:
        st.info("No row of these is predicted: choose other filters.")
        return
    cards = [
        ("Rows predicted", f"{told['predicted']:,} of {told['rows']:,}", "", None),
        ("Median error", f"{told[f'{error}_median']:.1f} %", "", "Absolute, predicted over measured."),
        ("90 % have less than", f"{told[f'{error}_p90']:.0f} %", "", None),
    ]
    if told["inside_frac"] is not None:
        cards.append(
            ("Inside the 80 % interval", format_percent(told["inside_frac"]), "", "Of the shipped profile.")
        )
    shell.metrics(cards)
    done = table[table["skipped"] == ""]
    shell.chart(
        validation_figures.against(done, predicted, "gpu"), done, "against",
        alt=f"Predicted over measured {calibration.KINDS[kind]}, with the line of agreement and a band of 10 %",
    )  # fmt: skip
    with st.expander("How the errors spread"):
        st.plotly_chart(
            validation_figures.residuals(done, error), width="stretch", key="residuals",
            alt="Histogram of predicted over measured, in percent",
        )  # fmt: skip
    for column, label in FILTERS.items():
        with st.expander(f"By {label[0].lower() + label[1:] if label != 'GPU' else label}"):
            rows = [
                {
                    label: name or "not told",
                    "rows": len(part),
                    "median error, %": round(part[error].abs().median(), 1),
                    "p90, %": round(part[error].abs().quantile(0.9), 1),
                    "mean error, %": round(part[error].mean(), 1),
                }
                for name, part in done.groupby(column)
            ]
            shell.table(rows)
    left_out = table[table["skipped"] != ""]
    if len(left_out):
        with st.expander(f"{len(left_out):,} rows not predicted, and why"):
            shell.table(left_out["skipped"].value_counts().reset_index().to_dict("records"))


def page() -> None:
    """The page from top to bottom."""
    st.title("Validation")
    st.caption("Published and own measurements against predictions; every row names its source.")
    kind = chosen_kind()
    if kind is None:
        return
    show(filtered(kind), kind)
    st.divider()
    st.caption("The same on the command line")
    file = f"scenarios/measurements/{FILES.get(kind, kind)}.csv.gz"
    st.code(f"rackcast validate {COMMANDS.get(kind, 'kernels')} {file}", language="bash", wrap_lines=True)


page()
