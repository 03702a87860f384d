"""Parameter servers: who is the bottleneck, and what waiting costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.parameter_server import (
    asynchronous_updates_per_s,
    bounded_staleness_step_s,
    exchange_s,
    mean_staleness,
    slowest_s,
    synchronous_step_s,
)


def test_servers_are_the_bottleneck_until_there_are_as_many_as_workers() -> None:
    found = exchange_s(1e9, 16, np.array([1, 4, 16, 64]), 1e9, 1e9)
    np.testing.assert_allclose(found, [32, 8, 2, 2])


def test_duplex_links_halve_the_exchange_and_latency_counts_twice() -> None:
    assert exchange_s(1e9, 16, 4, 1e9, 1e9, full_duplex=True) == pytest.approx(4)
    assert exchange_s(0, 16, 4, 1e9, 1e9, latency_s=0.1) == pytest.approx(0.2)


def test_slowest_of_normal_times_follows_order_statistics() -> None:
    np.testing.assert_allclose(slowest_s(0, 1, [1, 8, 512, 16384]), [0, 1.42, 3.04, 3.97], atol=0.02)


def test_slowest_agrees_with_sampling() -> None:
    draws = np.random.default_rng(3).normal(1.0, 0.1, (4000, 64)).max(axis=1)
    assert slowest_s(1.0, 0.1, 64) == pytest.approx(draws.mean(), rel=0.005)


@given(bound=st.integers(0, 100), workers=st.integers(2, 4096), jitter=st.floats(0, 0.5))
def test_staleness_lies_between_lock_step_and_no_waiting(bound: int, workers: int, jitter: float) -> None:
    lock_step = synchronous_step_s(1.0, jitter, workers, 0.3)
    bounded = bounded_staleness_step_s(1.0, jitter, workers, bound, 0.3)
    assert 1.3 - 1e-12 <= bounded <= lock_step + 1e-12
    assert bounded_staleness_step_s(1.0, jitter, workers, 0, 0.3) == pytest.approx(float(lock_step))


def test_asynchronous_rate_saturates_at_the_servers() -> None:
    found = asynchronous_updates_per_s(np.array([1, 10, 1000]), 2.0, 1e9, 4, 1e10)
    np.testing.assert_allclose(found, [0.5, 5, 20])
    assert mean_staleness(32) == 31
