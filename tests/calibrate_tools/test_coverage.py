"""Intervals of fits on synthetic hardware: a quick form of benchmarks/coverage.py, and its fake timer."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import (
    FakeTimer,
    Trouble,
    coverage,
    embedding_hardware,
    fewest_held,
    hits,
    memory_hardware,
    product_hardware,
    timed,
)

HEALTHY = Trouble(wander=0, straggler_prob=0, throttled_prob=0, outlier_prob=0)


@pytest.mark.parametrize("trouble", [HEALTHY, Trouble()], ids=["healthy", "troubled"])
@pytest.mark.parametrize(
    ("make", "most"),
    [(memory_hardware, 59), (product_hardware, 59), (embedding_hardware, 60)],
    ids=["memory", "gemm", "embedding"],
)
def test_intervals_hold_the_truth_about_as_often_as_they_say(make, most: int, trouble: Trouble) -> None:
    """60 draws: no fewer are held than chance explains, and an 80 % interval is not one of 99 % either.

    Save for look-ups, whose five parameters have sixteen rows: there an interval may be wider than it says.
    """
    for name, (stated, widened) in coverage(make(), 60, trouble).items():
        assert fewest_held(60, 0.8) <= round(60 * stated) <= most, name
        assert round(60 * widened) >= fewest_held(60, 0.95), name


def test_without_scatter_the_fit_finds_what_it_was_made_from() -> None:
    from calibrate.fit.common import fit_parameters

    hardware = memory_hardware()
    truth = {p.name: p.start * 1.2 for p in hardware.parameters if p.name != "memory_eff_frac"} | {
        "memory_eff_frac": 0.9
    }
    found = fit_parameters(
        hardware.parameters, hardware.seconds, hardware.seconds(truth), "x", prior_weight=1e-6
    )
    for name, constant in found.items():
        assert constant.value == pytest.approx(truth[name], rel=2e-3)
        assert constant.low == pytest.approx(constant.high, rel=2e-3), "nothing to be unsure of"


def test_a_share_that_fades_out_has_an_upper_end_alone() -> None:
    """t = a + b n with b n far below the scatter: b may be nothing, and not more than its standard error allows."""
    from calibrate.fit.common import fit_parameters
    from sim.cost.parameters import Parameter

    rng = np.random.default_rng(5)
    n = np.tile(np.arange(1.0, 11.0), 20)
    seen = (1.0 + 1e-4 * n) * np.exp(0.02 * rng.standard_normal(len(n)))
    parameters = [Parameter("a", "s", "start", 1.0, 0.1, 10.0), Parameter("b", "s", "each", 1e-3, 1e-6, 1e3)]
    found = fit_parameters(parameters, lambda v: v["a"] + v["b"] * n, seen, "x", prior_weight=1e-6)["b"]
    error = 0.02 / (np.std(n) * np.sqrt(len(n)))
    assert found.low == 1e-6
    assert found.high is not None
    assert 1e-4 < found.high < found.value + 3 * error


def test_the_timer_tells_the_truth_when_nothing_troubles_it() -> None:
    quiet = Trouble(scatter=0, model_scatter=0, wander=0, straggler_prob=0, throttled_prob=0, outlier_prob=0)
    hardware = product_hardware()
    truth = {p.name: p.start for p in hardware.parameters}
    order, seen = timed(hardware, truth, np.random.default_rng(0), quiet)
    assert seen == pytest.approx(hardware.seconds(truth)[order])
    assert sorted(order) == list(range(len(seen)))
    timer = FakeTimer(np.random.default_rng(0), quiet)
    assert timer.block(0.25)(4) == timer() == 1.0


def test_one_seed_one_answer() -> None:
    assert hits(memory_hardware(), 3) == hits(memory_hardware(), 3)
