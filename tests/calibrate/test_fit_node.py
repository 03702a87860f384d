"""Ratios and rates read off a node: what was put in comes out, and intervals grow where readings are few."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.fit import fit_tables, node
from calibrate.fit import gemm as fit_gemm
from calibrate.fit.common import fit_parameters
from calibrate.fit.layer import fit_layer, layer_kernels_s, residual_kernels_s
from calibrate.measurements import columns
from calibrate.step_suite import Step
from sim.cost.kernels.gemm import gemm_s
from sim.cost.parameters import Parameter
from sim.spec.catalog import load_catalog
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit
from sim.spec.workload import Training
from sim.training.layers import transformer_layer
from sim.training.mixed import STACK_ENGINES
from sim.training.pricing import Pricer
from sim.validation.training import scenario_of
from sim.validation.verify import accelerator_of

CORE = Device("core", "cpu", {"fp32": 1e11, "bf16": 2e11}, 16e9, 2e10, 1, 3.2e7, host_bytes_per_s=2e9)
DEVICES = {"Core": CORE}
BASE = {"gpu": "Core", "dtype": "float32", "engine": "torch eager"}


def test_a_spread_is_the_median_with_the_interval_of_the_next_reading():
    constant = node.spread_constant([0.9, 1.0, 1.1], "1", "test")
    s = float(np.std(np.log([0.9, 1.0, 1.1]), ddof=1))
    half = 1.2816 * s * math.sqrt(4 / 3) * (1 + (1.2816**2 + 1) / 8)
    assert constant.value == 1.0
    assert constant.high == pytest.approx(math.exp(half), rel=1e-3)
    assert constant.low == pytest.approx(math.exp(-half), rel=1e-3)
    alone = node.spread_constant([2.0], "1", "test")
    assert alone.low < 2.0 < alone.high


@given(st.lists(st.floats(0.5, 2.0), min_size=2, max_size=20))
def test_an_interval_holds_its_median_and_more_readings_narrow_it(ratios):
    few, many = node.spread_constant(ratios, "1", "t"), node.spread_constant(ratios * 8, "1", "t")
    assert few.low <= few.value <= few.high
    assert many.high / many.low <= few.high / few.low * 1.001


def test_rates_find_latency_and_bandwidth():
    rows = [
        {**BASE, "op": "host_to_device", "pinned": 1, "bytes": size, "time_us": 1e6 * (5e-6 + size / 2e10)}
        for size in (2**12, 2**16, 2**20, 2**26)
    ]
    (fit,) = node.fit_rates("copies", rows, DEVICES, "test")
    assert fit.values()["latency_s"] == pytest.approx(5e-6, rel=0.02)
    assert fit.values()["bytes_per_s"] == pytest.approx(2e10, rel=0.02)
    assert fit.key["of"] == "host_to_device"
    assert fit.error.median_ape < 1


def test_an_optimizer_reaches_its_share_of_the_bandwidth():
    # AdamW moves 30 + 12 bytes a parameter: 42e6 bytes of a million at half of 20 GB/s take 4.2 ms
    row = {**BASE, "rule": "adamw", "kind": "fused", "parameters": 1e6, "ranks": 1, "time_us": 4200.0}
    (fit,) = node.fit_optimizer([row], DEVICES, "test", ())
    assert fit.values()["optimizer_bandwidth_frac"] == pytest.approx(0.5)


def test_overlap_is_the_time_beside_over_the_time_alone():
    rows = [
        {**BASE, "mode": mode, "ranks": 2, "time_us": t} for mode, t in (("alone", 10.0), ("beside", 13.0))
    ]
    (fit,) = node.fit_overlap(rows, DEVICES, "test", ())
    assert fit.values() == {"overlap_slowdown_frac": pytest.approx(0.3)}
    assert node.fit_overlap(rows[:1], DEVICES, "test", ()) == []


def test_products_of_a_processor_are_recovered_on_held_out_shapes():
    truth = {"compute_frac": 0.9, "edge_rows": 6.0, "edge_columns": 20.0, "memory_frac": 0.7, "l2_ratio": 3.0}
    draw = np.random.default_rng(3)
    m, n, k = (np.round(2 ** draw.uniform(0, 10, 60)) for _ in range(3))
    seconds = gemm_s(CORE, m, n, k, "fp32", truth)
    assert np.all(seconds >= 2 * m * n * k / 1e11)
    rows = {"gpu": np.full(60, "Core"), "dtype": np.full(60, "float32"), "m": m, "n": n, "k": k}
    predicted = fit_gemm.cross_validate(rows | {"time_us": 1e6 * seconds}, DEVICES)
    error = np.abs(predicted / seconds - 1)
    assert np.median(error) < 0.03
    assert np.quantile(error, 0.9) < 0.15


def test_grouped_products_take_as_long_as_their_number():
    one, eight = (float(gemm_s(CORE, 256, 256, 256, "fp32", {}, batch=b)) for b in (1, 8))
    assert eight / one == pytest.approx(8, rel=0.1)


LAYERS = [
    {
        **BASE,
        "batch": 2,
        "seq_len": 128,
        "hidden": 256,
        "heads": 4,
        "kv_heads": 2,
        "ffn_hidden": 512,
        "ranks": 1,
    },
    {
        **BASE,
        "batch": 1,
        "seq_len": 256,
        "hidden": 512,
        "heads": 8,
        "kv_heads": 8,
        "ffn_hidden": 768,
        "ranks": 1,
    },
]


@pytest.mark.parametrize("experts", [0, 4])
@pytest.mark.parametrize("row", LAYERS)
def test_the_kernels_of_a_layer_are_those_of_the_step_model(row, experts):
    topk = 2 if experts else 0
    step = Step(
        "decoder", 1, row["hidden"], row["heads"], row["kv_heads"], row["ffn_hidden"], 512, row["seq_len"]
    )
    columns = step.columns() | {"experts": experts, "topk": topk, "gpu": "core", "step_time_s": 1.0}
    columns |= {
        "micro_batch": row["batch"],
        "global_batch": row["batch"],
        "moe_ffn_hidden": row["ffn_hidden"],
    }
    catalog = load_catalog()
    core = accelerator_of("Core", CORE, 1)
    catalog = replace(catalog, accelerators={**catalog.accelerators, "core": core})
    scenario, _ = scenario_of(columns, catalog)
    training = scenario.training
    assert isinstance(training, Training)
    pricer = Pricer(CORE, None, (), "fp32", {}, engines=STACK_ENGINES["torch-eager"])
    block = transformer_layer(training.model, training, moe=bool(experts))
    priced = pricer.seconds((*block.forward, *block.backward))
    mine, count = layer_kernels_s((), CORE, row | {"experts": experts, "topk": topk})
    assert mine == pytest.approx(priced, rel=1e-6)
    assert count == len(block.forward) + len(block.backward)


def test_a_layer_that_takes_thirty_percent_more_gives_that_factor():
    rows = [dict(row, time_us=1.3e6 * layer_kernels_s((), CORE, row)[0]) for row in LAYERS]
    block = {**BASE, "channels": 64, "width": 16, "batch": 2, "size": 28, "stride": 1, "ranks": 1}
    rows.append(dict(block, time_us=0.8e6 * residual_kernels_s((), CORE, block)[0]))
    launch = Fit("launch", {"accelerator": "core"}, {"eager_host_s": Constant(2e-6, "s", "measured", "test")})
    layer, residual = fit_layer(rows, DEVICES, "test", [launch])
    assert layer.key["stack"] == residual.key["stack"] == "torch-eager"
    assert (layer.key["network"], residual.key["network"]) == ("transformer", "convolutional")
    assert layer.values()["kernel_factor"] == pytest.approx(1.3, rel=1e-3)
    assert residual.values()["kernel_factor"] == pytest.approx(0.8, rel=1e-3)
    assert layer.values()["host_s"] == 2e-6


def test_convolutions_are_their_product_times_a_measured_ratio():
    shape = {"in_channels": 64, "out_channels": 64, "size": 28, "kernel": 3, "stride": 1, "padding": 1}
    rows = [
        {**BASE, "pass": "forward", "batch": batch, **shape, "groups": 1, "time_us": 1.0}
        for batch in (1, 2, 4)
    ]
    timed = [dict(row, time_us=2e6 * node._convolution_s((), CORE, row, "torch eager")) for row in rows]
    (fit,) = node.fit_convolution(timed, DEVICES, "test", ())
    assert fit.values()["gemm_ratio"] == pytest.approx(2.0, rel=1e-3)
    again = node._convolution_s([fit], CORE, rows[0], "torch eager")
    assert again == pytest.approx(timed[0]["time_us"] * 1e-6, rel=1e-3)
    assert fit.error.median_ape < 0.1


def test_rows_that_lean_on_a_rate_nobody_measured_are_left_out_with_the_reason():
    bare = Device("core", "cpu", {}, 16e9, 2e10, 1, 3.2e7)
    layer = {**LAYERS[0], "time_us": 1000.0}
    optimizer = {**BASE, "rule": "adamw", "kind": "fused", "parameters": 1e6, "ranks": 1, "time_us": 4200.0}
    tables = {"layer": columns([layer]), "optimizer": columns([optimizer])}
    fits, left_out = fit_tables(tables, {"Core": bare}, "test")
    assert [fit.op for fit in fits] == ["optimizer"]
    assert left_out == ["layer: core: no datasheet rate for 'fp32' nor for fp32, tf32"]


def test_what_no_row_tells_of_has_its_whole_range() -> None:
    """One rate is in every row and one in none: the first is known, of the second only what was believed before."""
    felt = Parameter("felt", "s", "a rate", 1.0, 0.01, 100.0)
    unfelt = Parameter("unfelt", "s", "another", 1.0, 0.01, 100.0)
    sizes = np.arange(1.0, 41.0)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.02, len(sizes)))
    fitted = fit_parameters(
        (felt, unfelt), lambda values: values["felt"] * sizes, 3.0 * sizes * noise, "test"
    )
    least, most = fitted["felt"].low, fitted["felt"].high
    assert least is not None
    assert most is not None
    assert least <= 3.0 <= most < 1.05 * least
    low, high = fitted["unfelt"].low, fitted["unfelt"].high
    assert low is not None
    assert high is not None
    assert (low, high) == (pytest.approx(0.01), pytest.approx(100.0))
