"""Waiting for the slowest: order statistics, and their place in the step and in its books."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

import sim
from sim.results.timeline import account, account_ranks
from sim.spec.loader import loads
from sim.training.engine import play
from sim.training.program import build
from sim.training.program_parts import ChunkCost, Options, StepCost
from sim.training.stragglers import expected_maximum, straggler_wait_s


@pytest.mark.parametrize(("ranks", "z"), [(1, 0.0), (8, 1.42), (512, 3.04), (16384, 3.97)])
def test_expected_maximum_of_normal_ranks(ranks: int, z: float) -> None:
    """Against tabulated values and against the integral n x phi(x) Phi(x)^(n-1) dx."""
    exact = quad(lambda x: ranks * x * norm.pdf(x) * norm.cdf(x) ** (ranks - 1), -8, 8, points=[0, z])[0]
    assert float(expected_maximum(ranks)) == pytest.approx(z, abs=0.02)
    assert float(expected_maximum(ranks)) == pytest.approx(exact, abs=0.02)


def test_scalars_and_arrays_agree_and_more_ranks_wait_longer() -> None:
    ranks = np.array([1, 2, 16, 1000])
    waits = straggler_wait_s(10.0, ranks, 8, 0.01, 0.05)
    assert waits[0] == pytest.approx(0, abs=1e-12)
    assert np.all(np.diff(waits) > 0)
    for number, wait in zip(ranks, waits, strict=True):
        assert float(straggler_wait_s(10.0, int(number), 8, 0.01, 0.05)) == wait


def test_jitter_averages_out_and_a_slow_device_does_not() -> None:
    one, many = straggler_wait_s(10.0, 64, np.array([1, 100]), 0.0, 0.05)
    assert one == pytest.approx(10 * many)
    assert np.ptp(straggler_wait_s(10.0, 64, np.array([1, 100]), 0.05)) == 0
    both = float(straggler_wait_s(10.0, 64, 25, 0.03, 0.2))
    assert both == pytest.approx(float(expected_maximum(64)) * 10 * 0.05)


@settings(max_examples=60, deadline=None)
@given(
    p=st.integers(1, 4),
    v=st.integers(1, 3),
    wait=st.floats(0, 5),
    reduce=st.floats(0, 20),
    overlap=st.booleans(),
    update=st.booleans(),
)
def test_the_wait_adds_itself_to_the_step_and_has_a_cause_of_its_own(
    p: int, v: int, wait: float, reduce: float, overlap: bool, update: bool
) -> None:
    v = v if p > 1 else 1
    cost = StepCost(
        [[ChunkCost(1.0, 2.0, 0.1, 0.1)] * v] * p,
        0.05,
        [[reduce] * v] * p,
        [0.5] * p if update else (),
        straggler_s=wait,
    )
    options = Options(p, 2 * p, v, overlap_gradients=overlap)
    slow = play(build(cost, options))
    even = play(build(StepCost(cost.chunks, 0.05, cost.gradients_s, cost.optimizer_s), options))
    assert slow.step_s == pytest.approx(even.step_s + wait, rel=1e-12)
    parts = account(slow)
    assert sum(parts.values()) == pytest.approx(slow.step_s, rel=1e-9)
    others = {"stragglers", "bubble", "data communication"}
    before = account(even)
    assert all(parts[cause] == pytest.approx(before[cause]) for cause in parts if cause not in others)
    assert account_ranks(even)[0]["stragglers"] == 0
    # the rank that ends last waits for the whole of it, unless earlier reductions still fill its network
    booked = account_ranks(slow)[0]
    assert booked["stragglers"] <= wait * (1 + 1e-9) + 1e-12
    if v == 1 or not overlap:
        assert booked["stragglers"] == pytest.approx(wait, rel=1e-9, abs=1e-12)
        assert booked["data communication"] == pytest.approx(v * reduce, rel=1e-9, abs=1e-9)


def test_a_scenario_with_uneven_devices_is_slower_and_says_why(small: str) -> None:
    even = sim.run(loads(small))
    spread = sim.run(loads(small, overrides=["training.speed_spread_frac=0.02"]))
    kernels = (
        (even.parts_s["forward"] + even.parts_s["backward"]) * 0.02 * float(expected_maximum(even.devices))
    )
    assert even.parts_s["stragglers"] == 0
    assert spread.step_s > even.step_s
    assert spread.parts_s["stragglers"] == pytest.approx(kernels, rel=0.2)  # the fullest rank sets it
    jitter = sim.run(loads(small, overrides=["training.jitter_frac=0.02"]))
    assert even.step_s < jitter.step_s < spread.step_s
    assert spread.timeline.busy_s().keys() == even.timeline.busy_s().keys()
