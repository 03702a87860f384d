"""Constants of stacks: middles of groups, sources left out, the rival, and the spread between sources."""

from __future__ import annotations

import numpy as np
import pytest

from sim.spec.profiles import fits_for
from sim.training.overheads import overheads
from sim.validation.middles import PULLS, REACH, left_out_middles, middle_of, own_middles
from sim.validation.rival import left_out_rival_s, rival_s
from sim.validation.stacks import FACTORS, LEVEL, Z80, Runs, left_out_factors, spreads_of

LABELS = np.array([["ampere", "a"]] * 3 + [["ampere", "b"]] * 3 + [["hopper", "a"]] * 2)
FAMILY = np.array(["x", "x", "y", "y", "z", "z", "z", "z"])


def test_a_group_leans_on_the_one_around_it() -> None:
    values = np.array([1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 9.0, 9.0])
    every, apart = np.ones(8, dtype=bool), np.arange(8).astype(str)  # each a source of its own: half a source
    all_of_them = 3.0 - REACH / 3  # three below pull at the three there, two above pull back
    assert middle_of(LABELS, apart, values, every, ()) == pytest.approx(all_of_them)
    ampere = (3 * 2.0 + PULLS[0] * all_of_them) / (3 + PULLS[0])
    assert middle_of(LABELS, apart, values, every, ("ampere",)) == pytest.approx(ampere)
    inside = (1.5 * 1.0 + PULLS[1] * ampere) / (1.5 + PULLS[1])
    assert middle_of(LABELS, apart, values, every, ("ampere", "a")) == pytest.approx(inside)
    assert middle_of(LABELS, apart, values, every, ("ampere", "unseen")) == pytest.approx(ampere)
    assert middle_of(LABELS, apart, values, every, ("volta",)) == pytest.approx(all_of_them)
    assert middle_of(LABELS, apart, values, ~every, ("ampere",)) == 0.0


def test_many_runs_of_one_source_hardly_outweigh_one_run_of_another() -> None:
    values = np.array([0.0] * 100 + [1.0] * 3)
    labels, every = np.array([["ampere"]] * 103), np.ones(103, dtype=bool)
    one = np.array(["x"] * 100 + ["y"] * 3)
    several = np.array(["x"] * 100 + ["p", "q", "r"])
    source, three = 100 / 101, 3 / 4  # what n values of one source weigh: n / (n + 1)
    assert middle_of(labels, one, values, every, ()) == pytest.approx(REACH * three / source)
    assert middle_of(labels, several, values, every, ()) == pytest.approx(1.0 - REACH * source / (3 / 2))
    whole = middle_of(labels, one, np.full(103, 2.0), every, ("ampere",))
    assert whole == pytest.approx(2.0)  # alike everywhere: nothing to lean on


def test_near_values_count_as_in_a_mean_and_a_far_one_pulls_no_harder_for_being_farther() -> None:
    labels, every, apart = np.array([["ampere"]] * 4), np.ones(4, dtype=bool), np.arange(4).astype(str)
    near = REACH * np.array([0.0, 0.1, 0.2, 0.9])
    assert middle_of(labels, apart, near, every, ()) == pytest.approx(near.mean())
    centres = [
        middle_of(labels, apart, np.array([0.0, 0.0, 0.0, far]), every, ()) for far in (2 * REACH, 50.0)
    ]
    assert centres == pytest.approx([REACH / 3] * 2)


def test_the_narrowest_level_counts_only_where_it_divides_its_group() -> None:
    labels = np.array([["g", "s", "p", "dense"]] * 4 + [["g", "s", "q", "dense"], ["g", "s", "q", "experts"]])
    values, every = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 5.0]), np.ones(6, dtype=bool)
    sources = np.arange(6).astype(str)
    alone, divided = ("g", "s", "p"), ("g", "s", "q")
    assert middle_of(labels, sources, values, every, (*alone, "dense")) == middle_of(
        labels, sources, values, every, alone
    )
    low, high = (middle_of(labels, sources, values, every, (*divided, kind)) for kind in ("dense", "experts"))
    assert low < middle_of(labels, sources, values, every, divided) < high


def test_a_left_out_family_does_not_speak_for_itself() -> None:
    values = np.arange(8.0)
    before = left_out_middles(LABELS, FAMILY, values)
    changed = np.where(FAMILY == "x", 100.0, values)
    after = left_out_middles(LABELS, FAMILY, changed)
    assert (after[FAMILY == "x"] == before[FAMILY == "x"]).all()
    assert (after[FAMILY != "x"] != before[FAMILY != "x"]).all()
    assert before[6:] == pytest.approx(1.5)  # hopper is known from family z alone: the middle of all others
    assert (own_middles(LABELS, FAMILY, changed) != before).any()


def test_the_rival_is_exact_where_utilisation_is_one_number() -> None:
    ideal = np.linspace(1.0, 8.0, 8)
    assert rival_s(LABELS, FAMILY, ideal, ideal / 0.4) == pytest.approx(ideal / 0.4)
    assert left_out_rival_s(LABELS, FAMILY, ideal, ideal / 0.4) == pytest.approx(ideal / 0.4)


def runs(error: np.ndarray, sigma: float) -> Runs:
    """Runs whose step time is the kernel factor, each of a family of its own, measured with a given error."""
    count = len(error)
    return Runs(
        np.array([["ampere", "a", "bf16", "dense"]] * count),
        np.arange(count).astype(str),
        np.exp(error),
        np.tile(np.log(FACTORS), (count, 1)),
        np.full(count, sigma),
        np.ones(count),
        np.arange(count),
    )


def test_with_the_spread_four_of_five_runs_lie_in_their_intervals() -> None:
    table = runs(np.random.default_rng(0).normal(0.0, 0.1, 300), 0.04)
    spread = spreads_of(table)["dense"]
    assert np.hypot(spread, 0.04) == pytest.approx(0.1, rel=0.15)
    error = np.abs(np.log(table.predicted_s(left_out_factors(table)) / table.measured_s))
    assert LEVEL <= (error <= Z80 * np.hypot(0.04, spread)).mean() < LEVEL + 0.05


def test_no_spread_is_added_where_kernels_explain_everything() -> None:
    table = runs(np.random.default_rng(1).normal(0.0, 0.02, 100), 0.1)
    assert spreads_of(table) == {"": 0.0, "dense": 0.0}


def test_experts_and_dense_layers_have_a_factor_each_where_a_format_has_both() -> None:
    fits = {
        tuple(fit.key.values()): fit.values()["kernel_factor"]
        for fit in fits_for("shipped")
        if fit.op == "stack"
    }
    both = ("hopper", "nemo", "fp8")
    assert fits[(*both, "dense")] < fits[(*both, "experts")]
    found = [
        overheads(fits_for("shipped"), "nemo", "hopper", "fp8", mlp=kind).kernel_factor
        for kind in ("dense", "experts")
    ]
    assert found == [fits[(*both, "dense")], fits[(*both, "experts")]]
    assert (
        *both[:1],
        "llm-foundry-fsdp",
        "bf16",
        "dense",
    ) not in fits  # dense alone: the format's own entry says it
