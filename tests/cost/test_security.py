"""Protection: envelopes, tolls and marks, each charged where it falls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost import security


def test_headers_matter_for_small_frames_only() -> None:
    assert security.wire_bytes(4096, security.MACSEC_HEADER_BYTES) == 4128
    overhead = security.wire_bytes(1.0, security.IPSEC_HEADER_BYTES, np.array([256.0, 4096.0])) - 1
    np.testing.assert_allclose(overhead, [0.234, 0.0146], atol=1e-3)


@given(rate=st.floats(1e6, 1e12), header=st.floats(0, 100), frac=st.floats(0.05, 1))
def test_goodput_never_exceeds_the_link(rate: float, header: float, frac: float) -> None:
    goodput = security.goodput_bytes_per_s(rate, header, 4096, frac)
    assert goodput <= rate * frac * (1 + 1e-12)
    # a payload takes as long at that rate as its wire bytes take at the encrypting link's
    assert 1e9 / goodput == pytest.approx(float(security.wire_bytes(1e9, header)) / (rate * frac))


def test_nothing_switched_on_costs_nothing() -> None:
    assert security.host_copy_s(1e9, 5e10) == pytest.approx(0.02)
    assert security.goodput_bytes_per_s(5e10, 0) == 5e10
    assert security.storage_goodput_bytes_per_s(1e9, 1.0) == 1e9


def test_confidential_mode_hurts_by_crossings_not_by_compute() -> None:
    quiet = security.confidential_step_s(1.0)
    chatty = security.confidential_step_s(1.0, host_bytes=3e8, crossings=1000)
    assert quiet == pytest.approx(1.002, abs=1e-3)
    assert chatty == pytest.approx(float(quiet) + 0.1 + 0.1)


def test_small_buckets_make_software_encryption_worse() -> None:
    few, many = security.software_encrypted_collective_s(0.01, 1e8, buckets=np.array([1, 100]))
    assert few == pytest.approx(0.01 + 0.1 + 2e-4)
    assert many - few == pytest.approx(99 * 2e-4)
    assert security.host_encryption_s(8e9, cores=4) == pytest.approx(1.0)


def test_watermarks_cost_their_share_of_the_batch_or_their_weights() -> None:
    assert security.watermark_trigger_s(0.5, 8, 256) == pytest.approx(0.5 / 32)
    one, two = security.watermark_regulariser_s(np.array([1e6, 2e6]), 64, 1e12, 1e14)
    assert two == pytest.approx(2 * one)
    assert one == pytest.approx((12e6 + 8e6 * 64) / 1e12)


def test_every_constant_says_where_it_comes_from() -> None:
    for parameter in security.SECURITY_PARAMETERS:
        assert parameter.source
        assert parameter.low <= parameter.start <= parameter.high
