"""A page in Streamlit's own test harness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.web import shell

MAIN = str(Path(__file__).resolve().parents[2] / "app" / "web" / "main.py")

SMALL = """
name = "small"
[[cluster.pools]]
system = "dgx-a100-80gb"
nodes = 2
[jobs]
[[jobs.mixes]]
name = "one"
arrivals = { rate_per_s = "40 /day" }
sizes = [{ gpus = 1, weight = 1.0, median_s = "50 min", sigma = 1.0 }]
[study]
span_s = "1 d"
least = 3
most = 3
"""

Open = Callable[..., AppTest]


@pytest.fixture(scope="session", autouse=True)
def no_browser() -> Iterator[None]:
    """Streamlit's harness paints nothing that a page should wait for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shell, "PAINT_S", 0.0)
        yield


@pytest.fixture(scope="module")
def opened() -> Open:
    """Opens a page (``views`` name) with the words of an address."""

    def open_page(name: str = "step", **query: str | list[str]) -> AppTest:
        page = AppTest.from_file(MAIN, default_timeout=120)
        if name != "step":
            page.switch_page(f"views/{name}.py")
        for key, value in query.items():
            page.query_params[key] = value
        return page.run()

    return open_page


@pytest.fixture(scope="module")
def small() -> str:
    """A cluster that is simulated in a second."""
    return SMALL
