"""Storage and loader: shares, stages and what prefetching can and cannot hide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.storage import Loading, Storage, client_bytes_per_s, loader_wait_s, loading, read_s, write_s

DISK = Storage(1e9, 5e8, client_read_bytes_per_s=2e8, client_write_bytes_per_s=1e8, metadata_per_s=1e3)


def stages(read: float = 0.0, preprocess: float = 0.0, copy: float = 0.0) -> Loading:
    return Loading(np.asarray(read), np.asarray(preprocess), np.asarray(copy))


def test_clients_get_their_own_rate_until_the_house_is_full() -> None:
    np.testing.assert_allclose(client_bytes_per_s(1e9, 2e8, [1, 5, 10]), [2e8, 2e8, 1e8])


@given(clients=st.integers(1, 10_000), size=st.floats(1, 1e12))
def test_no_storage_delivers_more_than_its_limits(clients: int, size: float) -> None:
    seconds = read_s(DISK, size, clients)
    assert clients * size / seconds <= 1e9 * (1 + 1e-9)
    assert size / seconds <= 2e8 * (1 + 1e-9)
    assert write_s(DISK, size, clients) >= seconds


def test_many_small_files_wait_for_metadata() -> None:
    assert read_s(DISK, 1e3, clients=10, files_per_client=1e4) == pytest.approx(100)


def test_loader_runs_at_its_slowest_stage() -> None:
    loader = loading(
        DISK,
        100,
        1e6,
        preprocess_s_per_sample=0.04,
        cores=8,
        device_bytes_per_sample=5e6,
        host_to_device_bytes_per_s=1e10,
    )
    assert (float(loader.read_s), float(loader.preprocess_s), float(loader.copy_s)) == pytest.approx(
        (0.5, 0.5, 0.05)
    )
    assert loader.period_s == pytest.approx(0.5)
    assert loader.latency_s == pytest.approx(1.05)


def test_prefetch_hides_what_is_fast_enough_and_never_a_mean_shortfall() -> None:
    assert loader_wait_s(1.0, stages(read=0.8, preprocess=0.9), prefetch=1) == 0
    assert loader_wait_s(1.0, stages(read=0.8, preprocess=0.9), prefetch=0) == pytest.approx(1.7)
    for depth in (1, 10, 1000):
        assert loader_wait_s(1.0, stages(read=1.5), prefetch=depth) == pytest.approx(0.5)


def test_hiccups_hide_behind_the_store_while_it_can_be_filled_again() -> None:
    loader = stages(read=0.5)
    wait = loader_wait_s(1.0, loader, prefetch=np.array([1, 4, 8]), hiccup_s=6.0, steps_between_hiccups=100)
    np.testing.assert_allclose(wait, [0.05, 0.02, 0.0])
    assert loader_wait_s(1.0, loader, 100, hiccup_s=80.0, steps_between_hiccups=100) == pytest.approx(0.3)


@given(
    step=st.floats(0.01, 10), period=st.floats(0.01, 10), depth=st.integers(1, 50), more=st.integers(1, 50)
)
def test_deeper_prefetch_never_waits_longer(step: float, period: float, depth: int, more: int) -> None:
    shallow = loader_wait_s(step, stages(period), depth, 5.0, 20)
    assert loader_wait_s(step, stages(period), depth + more, 5.0, 20) <= shallow
