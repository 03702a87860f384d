"""Compression: the bytes each method is known for, and when it does not pay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.collective_forms import ring_s
from sim.cost.compression import fp8, half_cast, one_bit, power_sgd, top_k, uncompressed


def wire_s(compressed, ranks: int) -> float:
    return float(sum(ring_s(op, size, ranks, 1e10, 0.0) for op, size in compressed.messages))


def test_bytes_relative_to_fp32() -> None:
    n = 64
    plain = wire_s(uncompressed(1e9), n)
    assert wire_s(half_cast(1e9), n) == pytest.approx(plain / 2)
    assert wire_s(fp8(1e9, n), n) == pytest.approx(plain / 4 * (1 + 4 / 128))
    assert wire_s(one_bit(1e9, n), n) == pytest.approx(plain / 32)


def test_power_sgd_sends_two_thin_factors() -> None:
    small = power_sgd(4096, 1024, 4)
    assert small.message_bytes == 4 * (4096 + 1024) * 4
    assert small.flop == pytest.approx(6 * 4096 * 1024 * 4 + 2 * 4096 * 16)
    assert small.state_bytes >= 4 * 4096 * 1024


@given(keep=st.floats(1e-4, 0.5), ranks=st.integers(2, 1024))
def test_top_k_receives_from_every_rank(keep: float, ranks: int) -> None:
    found = top_k(1e6, ranks, keep)
    assert found.message_bytes == pytest.approx(8e6 * keep * ranks)
    # gathered, not added: with many ranks it sends more than the plain all-reduce
    if keep * ranks > 2:
        assert wire_s(found, ranks) > wire_s(uncompressed(1e6), ranks)


def test_overhead_is_the_slower_of_traffic_and_arithmetic() -> None:
    cast = half_cast(np.array([1e6, 2e6]))
    np.testing.assert_allclose(cast.overhead_s(1e12, 1e15), [12e-6, 24e-6])
    assert power_sgd(4096, 4096, 256).overhead_s(1e15, 1e12) == pytest.approx(6 * 4096**2 * 256e-12, rel=0.1)


def test_only_error_feedback_keeps_state() -> None:
    assert half_cast(10).state_bytes == 0
    assert top_k(10, 4, 0.1).state_bytes == 40
    assert one_bit(10, 4).state_bytes == 50
