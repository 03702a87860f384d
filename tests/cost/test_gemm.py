"""The cost of a matrix product against closed forms, limits and the order that physics demands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cost.kernels.gemm import (
    ALIASES,
    FORMATS,
    PARAMETERS,
    canonical,
    choose,
    coordinates,
    gemm,
    gemm_s,
    lower_bound_s,
    peak_flop_per_s,
)
from sim.cost.kernels.tiles import TILES, tiles_for
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit, ResidualGrid

H100 = Device(
    "h100",
    "hopper",
    {"bf16": 989.4e12, "fp16": 989.4e12, "fp8": 1978.9e12, "fp32": 67e12, "tf32": 494.7e12},
    80 * 2**30,
    3.35e12,
    132,
    50 * 2**20,
)
IDEAL = {p.name: p.low for p in PARAMETERS} | {
    "compute_frac": 1.0,
    "memory_frac": 1.0,
    "l2_ratio": 15.0,
    "sm_share": 8.0,
    "split_s": 1e-7,
}
"""Nothing lost anywhere: the lower bound should come out."""

SHAPE = st.integers(min_value=1, max_value=20_000)


def test_large_square_product_of_an_ideal_device_takes_flop_over_peak() -> None:
    n = 132 * 128  # whole waves of 128 x 128 tiles
    assert gemm_s(H100, n, n, n, "bf16", IDEAL) == pytest.approx(2 * n**3 / 989.4e12, rel=0.03)


def test_decode_shape_of_an_ideal_device_takes_weight_bytes_over_bandwidth() -> None:
    seconds = gemm_s(H100, 1, 65_536, 16_384, "bf16", IDEAL)
    assert seconds == pytest.approx(65_536 * 16_384 * 2 / 3.35e12, rel=0.03)


def test_empty_work_takes_the_launch() -> None:
    tiny = gemm_s(H100, 1, 1, 1, "bf16", IDEAL | {"launch_s": 7e-6, "wave_s": 1e-8})
    assert tiny == pytest.approx(7e-6, rel=0.02)


def test_lower_bound_is_the_roofline() -> None:
    assert lower_bound_s(H100, 8192, 8192, 8192, "bf16") == pytest.approx(2 * 8192**3 / 989.4e12)
    moved = (3 * 4096 * 2) + 2 * (3 * 1024 + 1024 * 4096)
    assert lower_bound_s(H100, 3, 4096, 1024, "bf16") == pytest.approx(moved / 3.35e12)


@settings(max_examples=60, deadline=None)
@given(m=SHAPE, n=SHAPE, k=SHAPE, dtype=st.sampled_from(sorted(FORMATS)))
def test_defaults_never_beat_a_datasheet_with_a_cache(m: int, n: int, k: int, dtype: str) -> None:
    bound = lower_bound_s(H100, m, n, k, dtype)
    ratio = {p.name: p.start for p in PARAMETERS}["l2_ratio"]
    assert gemm_s(H100, m, n, k, dtype, {}) > bound / ratio


@settings(max_examples=60, deadline=None)
@given(m=SHAPE, n=SHAPE, k=SHAPE)
def test_scalars_equal_arrays_and_broadcast(m: int, n: int, k: int) -> None:
    one = gemm_s(H100, m, n, k, "fp8", {})
    table = gemm_s(H100, np.array([[m], [m + 1]]), np.array([n, n + 1, n + 2]), k, "fp8", {})
    assert one.shape == ()
    assert table.shape == (2, 3)
    assert table[0, 0] == pytest.approx(float(one), rel=1e-12)
    assert np.isfinite(table).all()


def test_chunks_do_not_show() -> None:
    m = np.arange(1, 5001)
    whole = gemm_s(H100, m, 4096, 4096, "bf16", {})
    assert whole[[0, 2047, 2048, 4999]] == pytest.approx(
        gemm_s(H100, m[[0, 2047, 2048, 4999]], 4096, 4096, "bf16", {})
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_twice_the_work_is_never_quicker(axis: int) -> None:
    rng = np.random.default_rng(1)
    shape = np.round(2 ** rng.uniform(0, 14, (3, 2000)))
    twice = shape.copy()
    twice[axis] *= 2
    small, large = gemm_s(H100, *shape, "bf16", {}), gemm_s(H100, *twice, "bf16", {})
    # The larger product may be cut where the smaller is not, or evenly where it was not: a step back of 3 %.
    assert (large >= small * 0.97).all()


@pytest.mark.parametrize("name", ["compute_frac", "memory_frac", "l2_ratio", "sm_share"])
def test_a_higher_rate_is_never_slower(name: str) -> None:
    rng = np.random.default_rng(2)
    shape = np.round(2 ** rng.uniform(0, 14, (3, 1000)))
    low, high = gemm_s(H100, *shape, "bf16", {name: 1.0}), gemm_s(H100, *shape, "bf16", {name: 1.1})
    assert (high <= low * (1 + 1e-9)).all()


def test_one_tile_beyond_a_full_wave_costs_another_wave() -> None:
    p = IDEAL | {"wave_frac": 1.0, "l2_ratio": 1.0, "split_s": 3e-4}
    full, more = (gemm_s(H100, 128 * 11, 128 * columns, 4096, "bf16", p) for columns in (24, 25))
    smooth = gemm_s(H100, 128 * 11, 128 * 25, 4096, "bf16", p | {"wave_frac": 0.02})
    assert more / full > 1.15
    assert smooth < more


def test_splitting_k_fills_the_device_where_it_is_cheap() -> None:
    cheap, dear = (gemm_s(H100, 64, 128, 65_536, "bf16", {"split_s": s}) for s in (1e-6, 3e-4))
    assert dear > 5 * cheap


def test_quantising_costs_in_proportion_to_a() -> None:
    with_pass = gemm_s(H100, 4096, 32, 8192, "fp8", {"quantise_bytes": 10.0, "quantise_row_s": 1e-11})
    without = gemm_s(H100, 4096, 32, 8192, "fp8", {"quantise_bytes": 0.3, "quantise_row_s": 1e-11})
    assert with_pass - without == pytest.approx(9.7 * 4096 * 8192 / (0.85 * 3.35e12), rel=1e-6)


def test_weight_only_formats_save_weight_bytes_alone() -> None:
    decode = [float(gemm_s(H100, 4, 32_768, 16_384, dtype, {})) for dtype in ("bf16", "int8_wo", "int4_wo")]
    assert decode[0] / decode[1] == pytest.approx(2, rel=0.05)
    assert decode[1] / decode[2] == pytest.approx(2, rel=0.1)
    prefill = [
        float(gemm_s(H100, 16_384, 8192, 8192, dtype, {"l2_ratio": 15})) for dtype in ("bf16", "int4_wo")
    ]
    assert prefill[1] == pytest.approx(prefill[0], rel=0.05)


def test_a_batch_costs_less_than_its_members_and_at_least_their_work() -> None:
    one = gemm_s(H100, 256, 512, 1024, "bf16", {})
    many = gemm_s(H100, 256, 512, 1024, "bf16", {}, batch=64)
    assert many < 64 * one
    assert many > lower_bound_s(H100, 256, 512, 1024, "bf16", batch=64)


def test_accumulating_fp32_gradients_moves_more_bytes() -> None:
    plain = gemm_s(H100, 8192, 8192, 64, "bf16", {})
    assert gemm_s(H100, 8192, 8192, 64, "bf16", {}, c_bytes=8) > 2 * plain


def test_formats_fall_back_to_what_the_device_has() -> None:
    assert peak_flop_per_s(H100, "nvfp4") == 1978.9e12
    assert peak_flop_per_s(H100, "int4_wo") == 989.4e12
    assert peak_flop_per_s(replace(H100, generation="cdna1"), "float32") == 494.7e12
    with pytest.raises(ValueError, match="no datasheet rate"):
        peak_flop_per_s(replace(H100, flop_per_s={"fp8": 1e15}), "bf16")


def test_unknown_formats_are_refused_with_the_known_ones() -> None:
    assert {canonical(name) for name in ALIASES} <= set(FORMATS)
    assert all(other in FORMATS for form in FORMATS.values() for other in form.similar)
    with pytest.raises(ValueError, match="bfloat16"):
        canonical("bf17")


def test_few_large_cores_take_larger_tiles() -> None:
    assert tiles_for(132) == TILES
    assert tiles_for(1)[0] == (256 * 8, 128 * 8)


def _fit(value: float = 0.8, grid: ResidualGrid | None = None, **key: str) -> Fit:
    return Fit("gemm", key, {"compute_frac": Constant(value, "1", "fitted", "a test")}, grid)


def test_choice_prefers_generation_then_format_then_engine_then_accelerator() -> None:
    own = _fit(generation="hopper", dtype="bf16", engine="vllm 0.20", accelerator="h100")
    sibling = _fit(generation="hopper", dtype="bf16", engine="vllm 0.20", accelerator="h200")
    whole = _fit(generation="hopper", dtype="bf16", engine="vllm 0.20")
    other_engine = _fit(generation="hopper", dtype="bf16", engine="trt", accelerator="h100")
    fp8 = _fit(generation="hopper", dtype="fp8", engine="trt")
    older = _fit(generation="ampere", dtype="int8", engine="vllm 0.20")
    fits = [older, fp8, other_engine, sibling, whole, own]
    assert choose(fits, H100, "bf16", "vllm 0.20") is own
    assert choose(fits, H100, "bf16", "vllm 0.24") is own
    assert choose(fits, H100, "bf16", "trt") is other_engine
    assert choose(fits, replace(H100, key="h20"), "bfloat16", "vllm 0.20") is whole
    assert choose(fits, H100, "fp16", "trt") is other_engine
    assert choose(fits, H100, "int8", "trt") is fp8
    assert choose(fits, replace(H100, generation="blackwell"), "int8") is fp8
    assert choose(fits, replace(H100, generation="turing"), "int8") is older
    assert choose([fit for fit in fits if fit is not whole], replace(H100, generation="tpu"), "fp8") is fp8
    assert choose([], H100, "bf16") is None


def test_estimate_says_what_it_leans_on() -> None:
    grid = ResidualGrid((("log2_m", (0.0, 10.0)),), (np.log(2.0), 0.0))
    fit = _fit(0.7, grid, generation="hopper", dtype="bf16")
    physics = gemm_s(H100, [1, 2048], 4096, 4096, "bf16", {"compute_frac": 0.7})
    estimate = gemm([fit], H100, [1, 2048], 4096, 4096, "bf16")
    assert estimate.seconds == pytest.approx(physics * [2, 1])
    assert estimate.leans_on == "parameters and residual grid"
    assert (estimate.efficiency_frac < 1).all()
    assert gemm([], H100, 1, 4096, 4096, "bf16").leans_on == "assumed defaults"
    other = gemm([fit], replace(H100, generation="ada"), [1, 2048], 4096, 4096, "bf16")
    assert other.leans_on == "parameters"
    assert other.seconds == pytest.approx(physics)


def test_coordinates_are_logarithms() -> None:
    assert coordinates(8, [1, 2], 1024)["log2_m"] == 3
    assert list(coordinates(8, [1, 2], 1024)["log2_n"]) == [0, 1]


@given(st.integers(64, 8192), st.integers(64, 16_384), st.integers(64, 16_384), st.integers(2, 8))
def test_pieces_cost_at_least_their_work_and_at_most_as_many_products(
    m: int, n: int, k: int, pieces: int
) -> None:
    whole = gemm([], H100, m * pieces, n, k, "bf16", pieces=pieces)
    alone = gemm([], H100, m, n, k, "bf16").seconds
    flop_s = 2 * m * pieces * n * k / H100.peak("bf16")  # small operands may come from the L2
    assert flop_s <= whole.seconds <= pieces * alone * (1 + 1e-9)
    assert gemm([], H100, m, n, k, "bf16", pieces=1).seconds == alone
    several = gemm([], H100, [m * pieces, m], n, k, "bf16", pieces=[pieces, 1]).seconds
    assert several == pytest.approx([float(whole.seconds), float(alone)], rel=1e-12)


@pytest.mark.parametrize("launch_s", [3e-7, 5e-5])
def test_pieces_pay_for_one_launch_and_share_nothing_else_where_no_wave_is_lost(launch_s: float) -> None:
    values = {"wave_frac": 0.0, "launch_s": launch_s}
    constants = {name: Constant(value, "1", "fitted", "a test") for name, value in values.items()}
    fit = Fit("gemm", {"generation": "hopper", "dtype": "bf16"}, constants)
    pieces = float(gemm([fit], H100, 4 * 512, 4096, 8192, "bf16", pieces=4).seconds)
    alone = float(gemm([fit], H100, 512, 4096, 8192, "bf16").seconds)
    assert pieces == pytest.approx(4 * alone - 3 * launch_s, rel=1e-12)
