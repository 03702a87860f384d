"""Sensitivities against closed forms: the Ishigami function's Sobol indices, exact ranks, exact swings."""

from __future__ import annotations

from math import pi, sin

import pytest

from sim.planning.sensitivity import (
    rank_correlations,
    saltelli_points,
    sobol_indices,
    tornado,
    tornado_points,
)
from sim.planning.sweep.axes import parse_axes, sample
from sim.planning.sweep.tables import table
from sim.spec.faults import ScenarioError


def answered(points, function):
    """Rows as a sweep would make them, with ``function`` of the values as the step time."""
    values = [[float(text) for _, text in point] for point in points]
    return table(points, [{"outcome": "done", "reason": "", "step_time_s": function(*row)} for row in values])


def ishigami(x: float, y: float, z: float) -> float:
    return sin(x) + 7 * sin(y) ** 2 + 0.1 * z**4 * sin(x)


def test_sobol_indices_of_the_ishigami_function() -> None:
    # Ishigami and Homma 1990 with a = 7, b = 0.1: V = a^2/8 + b pi^4/5 + b^2 pi^8/18 + 1/2
    axes = parse_axes([f"{name}={-pi}:{pi}" for name in "xyz"], ranges=True)
    points = saltelli_points(axes, 1024, 3)
    found = sobol_indices(axes, answered(points, ishigami), "step_time_s", 3)
    rows = {row["path"]: row for row in found["inputs"]}
    for path, first, total in (("x", 0.3139, 0.5576), ("y", 0.4424, 0.4424), ("z", 0.0, 0.2437)):
        assert rows[path]["first_order"] == pytest.approx(first, abs=0.04)
        assert rows[path]["total"] == pytest.approx(total, abs=0.04)
    assert found == sobol_indices(axes, answered(points, ishigami), "step_time_s", 3)


def test_sobol_indices_say_why_there_are_none() -> None:
    axes = parse_axes(["x=0:1", "y=0:1.5"], ranges=True)
    points = saltelli_points(axes, 8, 1)
    assert len(points) == 8 * 4
    rows = answered(points, lambda x, y: 1.0)
    assert "the same at every point" in sobol_indices(axes, rows, "step_time_s", 1)["reason"]
    rows[3]["step_time_s"] = None
    assert "1 of 32 points have no step_time_s" in sobol_indices(axes, rows, "step_time_s", 1)["reason"]
    with pytest.raises(ScenarioError, match=r"power of two.*nearest is 8"):
        saltelli_points(axes, 9, 1)


def test_ranks_see_any_monotonic_relation_and_no_other() -> None:
    axes = parse_axes(["x=0.5:9.5", "y=0.5:9.5", "z=3.0"], ranges=True)
    points = sample(axes, 64, "latin-hypercube", 2)
    rows = rank_correlations(axes, answered(points, lambda x, y, z: x**7), "step_time_s")
    assert rows[0]["path"] == "x"
    assert rows[0]["rank_correlation"] == pytest.approx(1)
    assert abs(next(row for row in rows if row["path"] == "y")["rank_correlation"]) < 0.3
    assert next(row for row in rows if row["path"] == "z")["rank_correlation"] is None


def test_words_rank_by_their_place_and_rows_without_a_figure_are_left_out() -> None:
    axes = parse_axes(["way=none,selective,full"], ranges=False)
    points = [(("way", text),) for text in ("full", "none", "selective", "full", "none")]
    answers = [{"outcome": "done", "reason": "", "step_time_s": t} for t in (3.0, 1.0, 2.0, 3.0, None)]
    (row,) = rank_correlations(axes, table(points, answers), "step_time_s")
    assert row["rank_correlation"] == pytest.approx(1)
    assert row["points"] == 4


def test_a_tornado_s_bars_are_the_exact_swings_widest_first() -> None:
    axes = parse_axes(["x=1:3", "y=10.0:20.5", "z=2,4,6"], ranges=True)
    points = tornado_points(axes)
    assert len(points) == 7
    bars = tornado(axes, answered(points, lambda x, y, z: 10 * x - y + z), "step_time_s")
    assert [(bar["path"], bar["swing"]) for bar in bars] == [("x", 20), ("y", 10.5), ("z", 4)]
    assert bars[0]["at_low"] == 10 - 15.25 + 4
    assert (bars[2]["low"], bars[2]["middle"], bars[2]["high"]) == ("2", "4", "6")
