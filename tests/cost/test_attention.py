"""Attention: work counted by hand, limits in which one resource alone decides, and what a profile changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.kernels.attention import (
    CHOICES,
    PARAMETERS,
    PHASES,
    attention,
    attention_bytes,
    attention_flop,
    attention_s,
    choose,
    coordinates,
    engine_family,
    lower_bound_s,
    operation,
    shape_of,
    unfused_attention_bytes,
    unfused_attention_stored_bytes,
    visible_keys,
)
from sim.cost.parameters import complete, defaults
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit, ResidualGrid

H100 = Device(
    "h100",
    "hopper",
    {"fp32": 67e12, "bf16": 989e12, "fp16": 989e12, "fp8": 1979e12},
    80e9,
    3.35e12,
    132,
    50e6,
)
A100 = Device("a100", "ampere", {"fp32": 19.5e12, "bf16": 312e12}, 80e9, 2.039e12, 108, 40e6)
LLAMA = {"heads": 32, "kv_heads": 8, "head_dim": 128}
sizes = st.integers(1, 300)


def _values(phase: str, **changed: float) -> dict[str, float]:
    return complete(PARAMETERS[phase], changed)


def _fit(phase: str, key: dict[str, str], grid: ResidualGrid | None = None, **changed: float) -> Fit:
    constants = defaults(PARAMETERS[phase])
    return Fit(
        operation(phase),
        key,
        constants | {n: Constant(v, "1", "fitted", "test") for n, v in changed.items()},
        grid,
    )


@given(q=sizes, before=st.integers(0, 300), window=st.integers(0, 700), causal=st.booleans())
def test_visible_keys_equal_a_count_of_the_mask(q, before, window, causal):
    shape = shape_of(
        "prefill", 1, 1, 1, 64, q + before, q_len=q, causal=causal, window=window if causal else 0
    )
    query = np.arange(q)[:, None] + before
    key = np.arange(q + before)[None, :]
    mask = key <= query if causal else np.ones((q, q + before), dtype=bool)
    if window and causal:
        mask &= key > query - window
    assert visible_keys(shape) * q == pytest.approx(mask.sum())


def test_flop_of_textbook_shapes():
    full = shape_of("fwd", 2, 16, 16, 128, 4096, causal=False)
    assert attention_flop("fwd", full) == 4 * 2 * 16 * 4096**2 * 128
    assert attention_flop("bwd", full) == 2.5 * attention_flop("fwd", full)
    causal = shape_of("fwd", 2, 16, 16, 128, 4096)
    assert attention_flop("fwd", causal) / attention_flop("fwd", full) == pytest.approx(4097 / 8192)
    latent = shape_of("bwd", 1, 128, 128, 192, 1000, head_dim_v=128, causal=False)
    assert attention_flop("bwd", latent) == 128 * 1000**2 * 2 * (3 * 192 + 2 * 128)


def test_bytes_of_a_decode_call_are_the_cache_and_the_query():
    shape = shape_of("decode", 4, 32, 8, 128, 1000)
    assert attention_bytes("decode", shape, 2, 1) == 4 * 8 * 1000 * 256 * 1 + 4 * 32 * 256 * 2
    windowed = shape_of("decode", 4, 32, 8, 128, 1000, window=100)
    assert attention_bytes("decode", windowed, 0, 2) == 4 * 8 * 100 * 256 * 2


def test_unfused_attention_keeps_five_a_s_squared_b():
    assert unfused_attention_stored_bytes(2, 16, 1024, 1024) == 5 * 16 * 1024**2 * 2
    scores = 2 * 16 * 1024**2
    assert unfused_attention_bytes("fwd", 2, 16, 1024, 1024) == 13 * scores
    assert unfused_attention_bytes("bwd", 2, 16, 1024, 1024, dropout=False) == 14 * scores


@pytest.mark.parametrize("phase", ["fwd", "bwd"])
def test_a_large_call_runs_at_the_matrix_rate(phase):
    values = _values(phase, exp_per_flop=1.0, serial_frac=0.01, mma_efficiency_frac=0.7)
    shape = shape_of(phase, 4, 64, 64, 128, 65536, causal=False)
    ideal = attention_flop(phase, shape) / (0.7 * H100.peak("bf16"))
    assert attention_s(values, H100, phase, shape, "bf16", "bf16") == pytest.approx(ideal, rel=0.03)


def test_exponentials_bind_narrow_heads_whatever_the_matrix_peak():
    values = _values("prefill", exp_per_flop=0.02, serial_frac=0.01)
    shape = shape_of("prefill", 8, 64, 64, 64, 32768, causal=False)
    seconds = attention_s(values, H100, "prefill", shape, "bf16", "bf16")
    assert seconds == pytest.approx(8 * 64 * 32768**2 / (0.02 * 67e12), rel=0.03)
    assert attention_s(values, H100, "prefill", shape, "fp8", "fp8") == pytest.approx(seconds, rel=0.02)


def test_a_long_cache_is_read_at_the_memory_rate():
    values = _values("decode", memory_efficiency_frac=0.9, cta_bytes_per_s=5e11, serial_frac=0.01)
    shape = shape_of("decode", 64, 32, 8, 128, 65536)
    ideal = attention_bytes("decode", shape, 2, 2) / (0.9 * 3.35e12)
    assert attention_s(values, H100, "decode", shape, "bf16", "bf16") == pytest.approx(ideal, rel=0.03)


def test_splits_help_one_long_sequence():
    shape = shape_of("decode", 1, 8, 1, 128, 131072)
    split, whole = (
        attention_s(_values("decode", **change), H100, "decode", shape, "bf16", "bf16")
        for change in ({}, {"split_ctas_per_sm": 1 / 132})
    )
    assert split < whole / 20


@pytest.mark.parametrize("phase", PHASES)
def test_the_smallest_call_costs_its_launch(phase):
    seconds = attention([], H100, phase=phase, batch=1, heads=1, kv_heads=1, head_dim=64, seq_len=1).seconds
    launch = _values(phase)["launch_s"]
    assert launch < seconds < launch + 5e-6


@given(
    phase=st.sampled_from(PHASES),
    batch=sizes,
    kv_heads=st.sampled_from([1, 2, 8]),
    group=st.sampled_from([1, 3, 16]),
    head_dim=st.sampled_from([64, 128, 192, 256]),
    seq_len=st.integers(1, 100_000),
    window=st.sampled_from([0, 128, 4096]),
)
def test_longer_and_wider_is_slower_and_nothing_beats_the_datasheet(
    phase, batch, kv_heads, group, head_dim, seq_len, window
):
    heads = kv_heads * group
    longer = np.array([seq_len, 2 * seq_len])
    same = {"phase": phase, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "window": window}
    one = attention([], H100, batch=batch, seq_len=longer, **same)
    two = attention([], H100, batch=2 * batch, seq_len=longer, **same)
    merge = 2e-6 if phase == "decode" else 0.0  # twice the sequences may save the merge of splits
    assert one.seconds[1] >= 0.9999 * one.seconds[0] - merge
    assert np.all(two.seconds >= 0.9999 * one.seconds - merge)
    best = 1.5 * 0.85 if phase == "decode" else 1.0  # a cache held in L2 beats the memory
    assert np.all(one.efficiency_frac <= best)


@pytest.mark.parametrize("phase", PHASES)
def test_scalars_and_arrays_agree(phase):
    seq_len = np.array([1, 17, 128, 1000, 33333])
    batch = np.array([[1], [5], [64]])
    call = {"phase": phase, "window": 256, "dtype": "fp8", **LLAMA}
    together = attention([], H100, batch=batch, seq_len=seq_len, **call)
    assert together.seconds.shape == together.lower_bound_s.shape == (3, 5)
    alone = [
        [float(attention([], H100, batch=int(b), seq_len=int(s), **call).seconds) for s in seq_len]
        for b in batch[:, 0]
    ]
    np.testing.assert_allclose(together.seconds, alone, rtol=1e-12)


@pytest.mark.parametrize("phase", ["fwd", "prefill", "decode"])
def test_a_window_saves_time_and_a_wide_one_changes_nothing(phase):
    call = {"phase": phase, "batch": 16, "seq_len": 16384, **LLAMA}
    full, narrow, wide = (attention([], H100, window=w, **call).seconds for w in (0, 512, 20000))
    assert narrow < full / 4
    assert wide == full


def test_grouped_queries_and_small_cache_values_shorten_decode():
    call = {"phase": "decode", "batch": 64, "heads": 32, "head_dim": 128, "seq_len": 8192}
    multi = attention([], H100, kv_heads=32, **call).seconds
    grouped = attention([], H100, kv_heads=8, **call).seconds
    eight_bit = attention([], H100, kv_heads=8, kv_dtype="fp8", **call).seconds
    assert grouped == pytest.approx(multi / 4, rel=0.1)
    assert eight_bit < 0.6 * grouped


def test_a_window_costs_packing_where_the_kernel_packs_plain_calls_only():
    shape = shape_of("decode", 256, 64, 2, 128, 64, window=128)
    packed, plain_only = (
        attention_s(_values("decode", splits_plain_only=flag), H100, "decode", shape, "bf16", "bf16")
        for flag in (0.0, 1.0)
    )
    assert plain_only > 5 * packed


def test_one_query_of_a_prefill_shares_its_group():
    call = {"phase": "prefill", "batch": 256, "head_dim": 128, "seq_len": 1}
    shared = attention([], H100, heads=64, kv_heads=1, **call).seconds
    assert shared == pytest.approx(attention([], H100, heads=1, kv_heads=1, **call).seconds, rel=0.2)


def test_the_nearest_fit_is_found():
    here = {"generation": "hopper", "dtype": "bf16", "kv_dtype": "bf16", "engine": "vllm"}
    fits = [
        _fit("prefill", {"generation": "ampere", "dtype": "bf16", "kv_dtype": "bf16", "engine": "vllm"}),
        _fit("prefill", {"dtype": "bf16", "kv_dtype": "bf16"}),
        _fit("prefill", here),
        _fit("prefill", here | {"accelerator": "h100"}),
        _fit("prefill", here | {"dtype": "fp8", "kv_dtype": "fp8"}),
        _fit("decode", here),
    ]
    h200 = Device("h200", "hopper", H100.flop_per_s, 141e9, 4.8e12, 132, 50e6)
    new = Device("r100", "rubin", H100.flop_per_s, 288e9, 13e12, 200, 200e6)
    assert choose(fits, H100, "prefill", "bf16", "bf16", "vllm 0.24.0") is fits[3]
    assert choose(fits, H100, "prefill", "float16", "float16") is fits[3]
    assert choose(fits, h200, "prefill", "bf16", "bf16", "vllm") is fits[2]
    assert choose(fits, H100, "fwd", "fp8", "fp8") is fits[4]
    assert choose(fits, new, "prefill", "bf16", "bf16") is fits[1]
    assert choose(fits, H100, "decode", "bf16", "fp8") is fits[5]
    assert choose(fits, H100, "bwd", "bf16", "bf16") is None


def test_a_grid_corrects_its_own_generation_only():
    doubled = ResidualGrid((("log2_queries", (0.0, 20.0)),), (np.log(2.0), np.log(2.0)))
    fits = [_fit("prefill", {"generation": "hopper"}, doubled)]
    call = {"phase": "prefill", "batch": 1, "seq_len": 4096, **LLAMA}
    plain, corrected = attention([], H100, **call), attention(fits, H100, **call)
    assert corrected.seconds == pytest.approx(2 * plain.seconds)
    assert (plain.leans_on, corrected.leans_on) == ("assumed defaults", "parameters and residual grid")
    foreign = attention(fits, A100, **call)
    assert foreign.leans_on == "parameters"
    assert foreign.seconds == attention([], A100, **call).seconds


def test_impossible_calls_are_refused_with_every_fault():
    with pytest.raises(ValueError, match=r"batch must be 1 or more, found 0.*kv_heads must not exceed heads"):
        attention([], H100, phase="decode", batch=0, heads=2, kv_heads=4, head_dim=64, seq_len=8)
    with pytest.raises(ValueError, match="phase 'training' is not one of fwd, bwd, prefill, decode"):
        attention([], H100, phase="training", batch=1, heads=1, kv_heads=1, head_dim=64, seq_len=8)
    with pytest.raises(ValueError, match="q_len must not exceed seq_len"):
        shape_of("prefill", 1, 1, 1, 64, 8, q_len=9)
    with pytest.raises(ValueError, match="number format 'int7'"):
        attention([], H100, phase="decode", batch=1, seq_len=8, kv_dtype="int7", **LLAMA)
    with pytest.raises(KeyError, match="fp8"):
        attention([], A100, phase="fwd", batch=1, seq_len=8, dtype="fp8", **LLAMA)


def test_names_and_parameters_are_well_formed():
    assert engine_family("vllm 0.24.0") == "vllm"
    assert engine_family("cudnn det") == "cudnn det"
    assert engine_family("FA qkv_contiguous=True") == "FA"
    for phase in PHASES:
        named = {p.name: p for p in PARAMETERS[phase]}
        assert set(CHOICES[phase]) <= set(named)
        assert all(p.low <= p.start <= p.high for p in named.values())
        where = coordinates(phase, shape_of(phase, 1, 8, 2, 128, 4096), H100)
        assert where["log2_group"] == 2


def test_lower_bound_of_a_decode_is_its_bytes_and_of_a_prefill_its_flop():
    decode = shape_of("decode", 64, 32, 8, 128, 8192)
    assert (
        lower_bound_s(H100, "decode", decode, "bf16", "bf16")
        == attention_bytes("decode", decode, 2, 2) / 3.35e12
    )
    prefill = shape_of("prefill", 1, 32, 8, 128, 8192)
    assert (
        lower_bound_s(H100, "prefill", prefill, "bf16", "bf16") == attention_flop("prefill", prefill) / 989e12
    )
