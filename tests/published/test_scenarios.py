"""The worked examples: each says what it shows, fits, closes its books and stays near what was published."""

from __future__ import annotations

from pathlib import Path

import pytest

import sim
from sim.results.step_tables import step_document

FILES = sorted(
    path
    for path in (Path(__file__).parents[2] / "scenarios").glob("*.toml")
    if not path.name.startswith(("cluster-", "plan-"))
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_worked_example_holds(path: Path) -> None:
    scenario = sim.load(path)
    assert scenario.shows.endswith(".")
    document = step_document(sim.run(scenario))
    assert document["memory"]["fits"]
    assert abs(document["books"]["difference_frac"]) < 1e-9
    for row in document["utilisation"]:  # whole attention squares that are half skipped may pass 0.8
        assert 0.05 < row["frac"] < 1
    for row in document["published"]:
        assert abs(row["error_pct"]) < 15
    shares = [row["samples_share_frac"] for row in document["pools"]]
    assert not shares or sum(shares) in (pytest.approx(1.0), len(shares))
