"""Bounded staleness and local SGD against the recursions they stand for, worker by worker and step by step."""

from __future__ import annotations

import numpy as np
import pytest

import sim
from sim.cost.parameter_server import bounded_staleness_step_s
from sim.spec.loader import loads
from sim.training.stragglers import expected_maximum

WORKERS, STEPS, JITTER = 32, 6400, 0.2
DRAWS = np.random.default_rng(7).normal(1.0, JITTER, (STEPS, WORKERS))


def stale_synchronous_step_s(bound: int) -> float:
    """Mean step when a worker starts step k only once every worker has ended step k - 1 - bound (Ho et al. 2013)."""
    ended = np.zeros((STEPS + 1, WORKERS))
    for k in range(1, STEPS + 1):
        allowed = ended[k - 1 - bound].max() if k - 1 - bound >= 0 else 0.0
        ended[k] = np.maximum(ended[k - 1], allowed) + DRAWS[k - 1]
    return float(ended[-1].mean() / STEPS)


def local_sgd_step_s(between: int, exchange_s: float) -> float:
    """Mean step when workers go on alone for ``between`` steps and then meet for one exchange (Stich 2019)."""
    rounds = DRAWS.reshape(STEPS // between, between, WORKERS).sum(axis=1)
    return float((rounds.max(axis=1) + exchange_s).mean() / between)


def test_without_slack_every_step_waits_for_the_slowest() -> None:
    closed = bounded_staleness_step_s(1.0, JITTER, WORKERS, 0, 0.0)
    assert stale_synchronous_step_s(0) == pytest.approx(float(closed), rel=0.01)


@pytest.mark.parametrize("bound", [1, 2, 4, 8])
def test_bounded_staleness_is_what_workers_do_when_they_are_played(bound: int) -> None:
    played = stale_synchronous_step_s(bound)
    closed = float(bounded_staleness_step_s(1.0, JITTER, WORKERS, bound, 0.0))
    assert played > 1.0
    assert played == pytest.approx(closed, rel=0.04)


JOB = """
name = "apart"
profile = "ideal"
[[cluster.pools]]
nodes = 32
system = { gpus_per_node = 1 }
accelerator = { flop_per_s = { fp32 = "1 TFLOP/s" }, memory_bytes = "4 GiB", memory_bytes_per_s = "10 GB/s" }
[training]
model = { sample_flop = "1 TFLOP" }
global_batch = 32
precision = "fp32"
optimizer = "sgd"
jitter_frac = 0.2
"""


@pytest.mark.parametrize("between", [1, 4, 16, 64])
def test_local_sgd_waits_once_for_many_steps(between: int) -> None:
    result = sim.run(loads(JOB, overrides=[f"training.plan.local_steps={between}"]))
    assert result.step_s == pytest.approx(local_sgd_step_s(between, 0.0), rel=0.01)
    wait_s = float(expected_maximum(WORKERS)) * JITTER / between**0.5
    assert result.parts_s["stragglers"] == pytest.approx(wait_s)


def test_a_persistently_slow_device_is_not_helped_by_meeting_less_often() -> None:
    steady = JOB.replace("jitter_frac", "speed_spread_frac")
    often, rarely = (
        sim.run(loads(steady, overrides=[f"training.plan.local_steps={n}"])).step_s for n in (1, 64)
    )
    assert often == pytest.approx(rarely)
