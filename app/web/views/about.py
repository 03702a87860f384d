"""About: what rackcast is, how to read it, and where its numbers come from."""

from __future__ import annotations

from importlib.metadata import version

import streamlit as st

st.title("About rackcast")
st.markdown(
    """rackcast predicts, explains and plans GPU clusters: how long a training step takes and why, what a cluster's
users wait for, which capacity to buy, and how sure each answer is.

**How to read an answer.** The number comes first, with the word for what bounds it. Every interval says what it is:
80 % from the calibration's own error for a step, 95 % of the mean over replications for a cluster, P10 to P90 over
drawn worlds for a plan. Charts have their numbers behind *Numbers (CSV)*.

**What if.** Change a field in the sidebar; the address of the page then holds the scenario and the changes, so that a
link gives the same answer. A link cannot carry an uploaded file: download the scenario instead.

**Where numbers come from.** Datasheets, published measurements and fits to them, each with its source on the
*Catalogue* and *Calibration* pages; *Validation* holds predictions against what was measured.

**What stays here.** The app listens on this machine, sends nothing anywhere, and reads nothing of an uploaded file but
the scenario in it.
"""
)
st.caption(f"rackcast {version('rackcast')}, Apache-2.0. Serving has no page yet.")
st.divider()
st.caption("The same on the command line")
st.code("rackcast --help", language="bash", wrap_lines=True)
