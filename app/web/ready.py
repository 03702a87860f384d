"""What the server does before it says that it is ready: the first visitor finds it warm.

Like a baker who lights the oven before the shop opens.
"""

from __future__ import annotations

import gc
import importlib
from pathlib import Path

from app import answers
from app.web.state import DEFAULT, resolve, shipped


def make() -> None:
    """Import what the pages import, read catalogue and profiles, and answer the question that the app opens on once."""
    for entry in sorted(Path(__file__).parent.glob("../report/*.py")):
        if entry.stem != "__init__":
            importlib.import_module(f"app.report.{entry.stem}")
    for name in ("app.web.knobs", "app.web.shell", "app.web.waiting", "plotly.graph_objects", "pandas"):
        importlib.import_module(name)
    answers.step(resolve(shipped(DEFAULT)))
    gc.collect()
    gc.freeze()  # what is here now stays; the collector need not walk through it at every change
