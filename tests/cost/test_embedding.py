"""Embedding lookups and their gradients: occupancy, access granularity and limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.kernels.embedding import gradient_s, lookup_s, row_bytes, touched_pages, touched_rows
from sim.spec.device import Device

A100 = Device("a100", "ampere", {"fp32": 19.5e12}, 80e9, 2.0e12, 108, 40e6)


def test_touched_rows_agree_with_a_simulation():
    random = np.random.default_rng(1)
    rows, lookups = 500, 800
    counted = np.mean([len(np.unique(random.integers(rows, size=lookups))) for _ in range(300)])
    assert float(touched_rows(lookups, rows)) == pytest.approx(counted, rel=0.01)


def test_skewed_touched_rows_agree_with_a_simulation():
    random = np.random.default_rng(2)
    rows, lookups = 1000, 1500
    counts = []
    for _ in range(300):
        hot = random.integers(200, size=1200)
        cold = 200 + random.integers(800, size=300)
        counts.append(len(np.unique(np.concatenate([hot, cold]))))
    assert float(touched_rows(lookups, rows, 0.8)) == pytest.approx(np.mean(counts), rel=0.01)


@given(st.integers(1, 10**7), st.integers(1, 10**8), st.floats(0, 0.99))
def test_touched_rows_stay_within_lookups_and_table(lookups, rows, skew):
    touched = float(touched_rows(lookups, rows, skew))
    assert 0 < touched <= min(lookups, rows) * (1 + 1e-9)


def test_rows_move_in_whole_accesses():
    np.testing.assert_array_equal(row_bytes(np.array([1, 16, 17, 128]), 4.0), [64, 64, 128, 512])


def test_large_cold_lookup_approaches_bytes_over_random_bandwidth():
    lookups, dim = 2**22, 128
    seconds = float(lookup_s(A100, lookups, lookups, dim, 10**9, random_eff_frac=0.6, launch_s=1e-6))
    moved = lookups * dim * 4
    assert seconds == pytest.approx(1e-6 + moved / (2.0e12 * 0.6) + moved / 2.0e12, rel=0.02)


def test_pooling_skew_and_small_tables_save_time():
    base = lookup_s(A100, 2**20, 2**20, 64, 10**8)
    assert lookup_s(A100, 2**20, 2**15, 64, 10**8) < base
    assert lookup_s(A100, 2**20, 2**20, 64, 10**8, skew=0.9) < base
    assert lookup_s(A100, 2**20, 2**20, 64, 1000) < base


@given(st.integers(1, 2**22), st.integers(1, 512))
def test_time_grows_with_lookups_and_width(lookups, dim):
    here = lookup_s(A100, lookups, lookups, dim, 10**7)
    assert lookup_s(A100, lookups + 1000, lookups + 1000, dim, 10**7) >= here
    assert lookup_s(A100, lookups, lookups, dim + 64, 10**7) > here


def test_gradient_of_distinct_rows_reads_gradients_and_updates_in_place():
    n, row = 2**20, 256
    seconds = float(gradient_s(A100, n, n, 64, 10**12, launch_s=1e-6, random_eff_frac=0.5, sort_passes=8))
    assert seconds == pytest.approx(1e-6 + (3 * n * row / 0.5 + 8 * n * 8) / 2.0e12, rel=1e-3)


def test_arrays_agree_with_scalars():
    dims = np.array([16, 64, 256])
    together = gradient_s(A100, 4096, 1024, dims, 10**6)
    np.testing.assert_allclose(together, [gradient_s(A100, 4096, 1024, d, 10**6) for d in dims])


def test_touched_pages_agree_with_a_simulation():
    random = np.random.default_rng(3)
    counted = np.mean([len(np.unique(random.integers(16 * 400, size=300) // 16)) for _ in range(300)])
    assert float(touched_pages(300, 16 * 400, 256)) == pytest.approx(counted, rel=0.01)


@given(st.integers(1, 2**18), st.integers(1, 10**7), st.floats(0, 1e-7))
def test_first_visits_cost_more_for_more_lookups_but_less_for_each(lookups, rows, page_s):
    def start_s(count):
        known = {"launch_s": 1e-6}
        return float(
            lookup_s(A100, count, count, 64, rows, page_s=page_s, **known)
            - lookup_s(A100, count, count, 64, rows, page_s=0.0, **known)
        )

    once, twice = start_s(lookups), start_s(2 * lookups)
    assert -1e-15 <= once <= twice + 1e-15
    assert twice <= 2 * once + 1e-12


def test_an_update_starts_and_first_visits_by_its_ratio():
    plain, longer = (float(gradient_s(A100, 64, 64, 64, 10**6, page_s=1e-8, update_ratio=r)) for r in (1, 4))
    first = float(lookup_s(A100, 64, 64, 64, 10**6, page_s=1e-8)) - float(
        lookup_s(A100, 64, 64, 64, 10**6, page_s=0.0, launch_s=0.0)
    )
    assert longer - plain == pytest.approx(3 * first, rel=1e-6)
