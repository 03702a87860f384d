"""Catalogue: every constant that a prediction can lean on, with its value, unit, kind and source."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import streamlit as st

from app import answers

COMMANDS = {
    "accelerators": "rackcast catalog list accelerators",
    "systems": "rackcast catalog list systems",
    "models": "rackcast catalog list models",
    "prices": "rackcast plan scenarios/plan-university.toml --json",
    "failure rates": "rackcast run scenarios/cluster-university.toml --json",
}
# What tells a constant comes first: a phone shows these three.
ORDER = ("entry", "constant", "value", "kind", "source", "name")
WIDTHS = {"entry": 130, "constant": 130, "value": 90}


@st.cache_data(show_spinner=False)
def constants(part: str) -> pd.DataFrame:
    """One row a constant of one part of the catalogue."""
    if part in ("prices", "failure rates"):
        return pd.DataFrame(answers.assumptions(part))
    rows = []
    for entry in answers.catalogue()[part]:
        rows += [
            {
                "entry": entry["key"],
                "name": entry["name"],
                "constant": field,
                "value": row["words"],
                "kind": row["kind"],
                "source": row["source"],
            }
            for field, row in entry["constants"].items()
        ]
    return pd.DataFrame(rows)


def matching(table: pd.DataFrame, words: str, kinds: Iterable[str]) -> pd.DataFrame:
    """Rows that hold every word somewhere, in any case, and are of one of the kinds (all where none is chosen)."""
    kept = table
    for word in words.lower().split():
        hit = kept.apply(lambda row, w=word: w in " ".join(map(str, row)).lower(), axis=1)
        kept = kept[hit.astype(bool)] if len(kept) else kept
    chosen = list(kinds)
    return kept[kept["kind"].isin(chosen)] if chosen and "kind" in kept else kept


def page() -> None:
    """The page from top to bottom."""
    st.title("Catalogue")
    st.caption("Every constant with where it was read. Assumed ones are guesses: replace them.")
    raw = st.query_params.get("part", "accelerators")
    parts = list(COMMANDS)
    if raw not in parts:
        st.warning(f"The address asks for part {raw!r}; expected one of {', '.join(parts)}.")
        raw = "accelerators"
    part = st.segmented_control("Part", parts, default=raw, key="part") or raw
    st.query_params["part"] = part
    table = constants(part)
    left, right = st.columns([2, 1])
    words = left.text_input("Find", key="find", placeholder="h100 bandwidth", help="Every word must occur.")
    kinds = right.multiselect("Kind", sorted(table["kind"].unique()), key=f"kinds:{part}")
    found = matching(table, words, kinds)
    if found.empty:
        st.info("Nothing matches: fewer or shorter words find more.")
    else:
        entries = found["entry"].nunique()
        st.caption(f"{len(found):,} constants of {entries:,} entries")
        st.dataframe(
            found,
            hide_index=True,
            height=520,
            column_order=ORDER,
            column_config={name: st.column_config.Column(width=width) for name, width in WIDTHS.items()},
        )
    st.download_button(
        "Download CSV", lambda: found.to_csv(index=False), f"{part}.csv", "text/csv", on_click="ignore", key="csv"
    )  # fmt: skip
    st.divider()
    st.caption("The same on the command line")
    st.code(COMMANDS[part], language="bash", wrap_lines=True)


page()
