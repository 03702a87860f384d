"""The app's entry: navigation and nothing else."""

from __future__ import annotations

import streamlit as st

st.set_page_config(page_title="rackcast", layout="wide")
st.navigation([st.Page("views/step.py", title="Step", default=True)], position="top").run()
