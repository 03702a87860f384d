"""Constants of stacks: middles of groups, sources left out, the rival, and the spread between sources."""

from __future__ import annotations

import numpy as np
import pytest

from sim.validation.middles import PULLS, left_out_middles, middle_of, own_middles
from sim.validation.rival import left_out_rival_s, rival_s
from sim.validation.stacks import FACTORS, LEVEL, Z80, Runs, left_out_factors, source_spread

LABELS = np.array([["ampere", "a"]] * 3 + [["ampere", "b"]] * 3 + [["hopper", "a"]] * 2)
FAMILY = np.array(["x", "x", "y", "y", "z", "z", "z", "z"])


def test_a_group_leans_on_the_one_around_it() -> None:
    values = np.array([1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 9.0, 9.0])
    every = np.ones(8, dtype=bool)
    assert middle_of(LABELS, values, every, ()) == 3.0
    ampere = (6 * 2.0 + PULLS[0] * 3.0) / (6 + PULLS[0])
    assert middle_of(LABELS, values, every, ("ampere",)) == pytest.approx(ampere)
    inside = (3 * 1.0 + PULLS[1] * ampere) / (3 + PULLS[1])
    assert middle_of(LABELS, values, every, ("ampere", "a")) == pytest.approx(inside)
    assert middle_of(LABELS, values, every, ("ampere", "unseen")) == pytest.approx(ampere)
    assert middle_of(LABELS, values, every, ("volta",)) == 3.0
    assert middle_of(LABELS, values, ~every, ("ampere",)) == 0.0


def test_a_left_out_family_does_not_speak_for_itself() -> None:
    values = np.arange(8.0)
    before = left_out_middles(LABELS, FAMILY, values)
    changed = np.where(FAMILY == "x", 100.0, values)
    after = left_out_middles(LABELS, FAMILY, changed)
    assert (after[FAMILY == "x"] == before[FAMILY == "x"]).all()
    assert (after[FAMILY != "x"] != before[FAMILY != "x"]).all()
    assert before[6:] == pytest.approx(1.5)  # hopper is known from family z alone: the middle of all others
    assert (own_middles(LABELS, changed) != before).any()


def test_the_rival_is_exact_where_utilisation_is_one_number() -> None:
    ideal = np.linspace(1.0, 8.0, 8)
    assert rival_s(LABELS, ideal, ideal / 0.4) == pytest.approx(ideal / 0.4)
    assert left_out_rival_s(LABELS, FAMILY, ideal, ideal / 0.4) == pytest.approx(ideal / 0.4)


def runs(error: np.ndarray, sigma: float) -> Runs:
    """Runs whose step time is the kernel factor, each of a family of its own, measured with a given error."""
    count = len(error)
    return Runs(
        np.array([["ampere", "a", "bf16"]] * count),
        np.arange(count).astype(str),
        np.exp(error),
        np.tile(np.log(FACTORS), (count, 1)),
        np.full(count, sigma),
        np.ones(count),
        np.arange(count),
    )


def test_with_the_spread_four_of_five_runs_lie_in_their_intervals() -> None:
    table = runs(np.random.default_rng(0).normal(0.0, 0.1, 300), 0.04)
    spread = source_spread(table)
    assert np.hypot(spread, 0.04) == pytest.approx(0.1, rel=0.15)
    error = np.abs(np.log(table.predicted_s(left_out_factors(table)) / table.measured_s))
    assert LEVEL <= (error <= Z80 * np.hypot(0.04, spread)).mean() < LEVEL + 0.05


def test_no_spread_is_added_where_kernels_explain_everything() -> None:
    assert source_spread(runs(np.random.default_rng(1).normal(0.0, 0.02, 100), 0.1)) == 0.0
