"""Mixture-of-experts layers: routing counts against exact formulas, limits of the duration, borrowing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cost.kernels.moe import OP, PARAMETERS, backend, choose, expert_matrices, moe
from sim.cost.kernels.routing import BLOCKS, expert_loads, rank_load, touched_experts
from sim.cost.parameters import defaults
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit

RATES = {"fp32": 67e12, "bf16": 989e12, "fp8": 1979e12}
H100 = Device("h100", "hopper", RATES, 80e9, 3.35e12, 132, 50e6)
POWERS_OF_TWO = st.sampled_from([1, 2, 4, 8, 16, 32])
KINDS = st.sampled_from(["balanced", "random", "power_law_1.01", "power_law_1.2"])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(1, 8), POWERS_OF_TWO, KINDS)
def test_every_pair_goes_to_one_expert(tokens, topk, ranks, distribution):
    load = expert_loads(tokens, topk, 64, ranks, distribution)
    np.testing.assert_array_equal(load.sum(axis=1), tokens * topk)
    assert load.min() >= 0
    np.testing.assert_array_equal(load, np.round(load))
    if distribution != "random":
        assert load.max() <= tokens  # nobody asks the same expert twice


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), POWERS_OF_TWO, KINDS)
def test_busiest_rank_has_at_least_the_mean_and_at_most_all(tokens, ranks, distribution):
    load = rank_load(tokens, 4, 64, ranks, distribution)
    assert tokens * 4 / ranks <= load.pairs + 1e-9
    assert load.pairs <= tokens * 4
    assert 0 < load.active <= min(64 / ranks, load.pairs)
    padded = load.blocks * np.array(BLOCKS)
    assert np.all(padded >= load.pairs - 1e-9)
    assert np.all(np.diff(load.blocks) <= 1e-9)


def test_a_surplus_is_taken_from_ranks_that_have_tokens():
    assert np.all(expert_loads(672, 1, 64, 32, "power_law_1.01").sum(axis=1) == 672)


def test_more_choices_than_experts_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        expert_loads(10, 9, 8, 1, "power_law_1.2")


def test_balanced_routing_is_exact():
    load = rank_load([1, 4, 16, 64], 8, 64, 4, "balanced")
    np.testing.assert_array_equal(load.pairs, [2, 8, 32, 128])
    np.testing.assert_array_equal(load.active, [2, 8, 16, 16])


def test_random_routing_touches_the_expected_number_of_experts():
    assert float(touched_experts(1, 8, 64)) == pytest.approx(8)
    random = np.random.default_rng(0)
    counted = np.mean(
        [len({e for _ in range(20) for e in random.choice(64, 4, replace=False)}) for _ in range(200)]
    )
    assert float(touched_experts(20, 4, 64)) == pytest.approx(counted, rel=0.02)
    assert float(touched_experts(10**6, 4, 64)) == pytest.approx(64)


def test_skew_loads_the_busiest_rank_more():
    even, mild, strong = (
        float(rank_load(4096, 8, 128, 16, name).pairs)
        for name in ("balanced", "power_law_1.01", "power_law_1.2")
    )
    assert even < mild < strong


def test_few_tokens_cost_the_weights_of_the_experts_touched():
    small = [
        {"launch_s": 1e-6, "expert_s": 1e-10, "fill_frac": 0.01, "l2_frac": 0.02, "memory_eff_frac": 0.8}
    ]
    constants = defaults(PARAMETERS) | {n: Constant(v, "1", "fitted", "test") for n, v in small[0].items()}
    fits = [Fit(OP, {"dtype": "bf16", "generation": "hopper"}, constants)]
    seconds = moe(fits, H100, 8, 7168, 2048, 8, 256).seconds
    weights = 64 * 3 * 7168 * 2048 * 2
    assert float(seconds) == pytest.approx(weights / (3.35e12 * 0.8), rel=0.05)


def test_many_tokens_approach_the_compute_rate():
    estimate = moe([], H100, 2**18, 4096, 14336, 2, 8)
    flop = 2 * 2**19 * 3 * 4096 * 14336
    assert float(estimate.lower_bound_s) == pytest.approx(flop / 989e12)
    assert 0.4 < float(estimate.efficiency_frac) < 0.65  # compute_eff_frac starts at 0.6


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4096), st.sampled_from(["bf16", "fp8", "int4_wo"]), KINDS)
def test_double_tokens_or_width_never_take_less(tokens, dtype, distribution):
    def seconds(t: int, f: int) -> float:
        return float(moe([], H100, t, 2048, f, 4, 32, distribution=distribution, dtype=dtype).seconds)

    here = seconds(tokens, 1024)
    assert seconds(2 * tokens, 1024) >= here * 0.98  # blocks change size: padding may shrink a little
    assert seconds(tokens, 2048) > here


def test_sharding_over_experts_or_width_shortens_the_layer():
    whole = moe([], H100, 2048, 4096, 2048, 8, 128).seconds
    assert moe([], H100, 2048, 4096, 2048, 8, 128, expert_parallel=8).seconds < whole
    assert moe([], H100, 2048, 4096, 2048, 8, 128, tensor=8).seconds < whole


def test_weight_only_formats_help_few_tokens_most():
    few, many = (
        float(
            moe([], H100, t, 4096, 2048, 8, 128, dtype="int4_wo").seconds
            / moe([], H100, t, 4096, 2048, 8, 128).seconds
        )
        for t in (16, 65536)
    )
    assert few < 0.6 < many


def test_arrays_agree_with_scalars():
    tokens = np.array([1, 64, 4096])
    together = moe([], H100, tokens[:, None], 4096, [1024, 2048], 8, 128, expert_parallel=4)
    assert together.seconds.shape == (3, 2)
    assert together.seconds[2, 1] == moe([], H100, 4096, 4096, 2048, 8, 128, expert_parallel=4).seconds


def test_nearest_fit_is_borrowed():
    fits = [
        Fit(OP, {"dtype": "bf16"}, defaults(PARAMETERS)),
        Fit(OP, {"dtype": "bf16", "generation": "hopper", "kernel": "a_triton", "backend": "triton"}, {}),
        Fit(OP, {"dtype": "bf16", "generation": "hopper", "kernel": "b_cutlass", "backend": "cutlass"}, {}),
    ]
    assert choose(fits, H100, "bf16", "b_cutlass") is fits[2]
    assert choose(fits, H100, "bf16", "other_cutlass_kernel") is fits[2]
    assert choose(fits, H100, "bf16") is fits[1]
    v100 = Device("v100", "volta", {"fp16": 112e12}, 32e9, 9e11, 80, 6e6)
    assert choose(fits, v100, "bf16", "a_triton") is fits[0]
    assert "borrowed from a_triton" in moe(fits, H100, 1, 64, 64, 1, 8, kernel="unheard_of").leans_on
    assert backend("vllm_FlashInfer_TRTLLM_experts") == "trtllm"


def test_experts_of_known_ungated_models_have_two_matrices():
    np.testing.assert_array_equal(expert_matrices([1856, 2048], [6, 8], [128, 256]), [2, 3])
    assert expert_matrices(1856, 6, 128, "vllm_fused_moe") == 3


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown distribution 'zipf'"):
        moe([], H100, 8, 64, 64, 1, 8, distribution="zipf")
    with pytest.raises(ValueError, match="60 experts do not divide among 8"):
        moe([], H100, 8, 64, 64, 1, 60, expert_parallel=8)
    with pytest.raises(ValueError, match="number format 'fp3'"):
        moe([], H100, 8, 64, 64, 1, 8, dtype="fp3")
