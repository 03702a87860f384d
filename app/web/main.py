"""The app's entry: navigation and nothing else."""

from __future__ import annotations

import streamlit as st

from app.web import shell

# In the order of the bar; each is ``views/<name in lower case>.py``.
PAGES = ("Step", "Cluster", "Plan", "Compare", "Calibration", "Validation", "Catalogue", "About")

st.set_page_config(page_title="rackcast", layout="wide")
st.html("<style>.stMainBlockContainer {padding-top: 4.5rem; padding-bottom: 3rem}</style>")
chosen = st.navigation(
    [st.Page(f"views/{title.lower()}.py", title=title, default=title == PAGES[0]) for title in PAGES],
    position="top",
)
shell.enter(chosen.title)
chosen.run()
shell.remember(chosen.title)
