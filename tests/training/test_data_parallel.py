"""How copies agree: traffic and time against closed forms, gathers and buckets as flow shops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.cost.collective_forms import bus_factor
from sim.results.step import StepResult
from sim.results.timeline import account
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads
from sim.spec.parallelism import Compression, ParameterServer, Plan
from sim.spec.workload import SampleModel, Training
from sim.training.data_parallel import (
    buckets,
    compressed,
    gradient_messages,
    overlaps,
    sent_bytes,
    server_message_bytes,
    shard_groups,
    state_bytes,
)
from sim.training.engine import play
from sim.training.pricing import Group
from sim.training.program import build
from sim.training.program_parts import ChunkCost, Options, StepCost

ETHERNET = """
name = "copies on 10 Gbit/s Ethernet"
[[cluster.pools]]
nodes = 8
system = { gpus_per_node = 1 }
accelerator = { flop_per_s = { fp32 = "10 TFLOP/s" }, memory_bytes = "16 GiB", memory_bytes_per_s = "500 GB/s" }
[training]
model = { sample_flop = "10 GFLOP", parameters = 1e8 }
global_batch = 256
precision = "fp32"
optimizer = "momentum"
plan = { micro_batch = 32 }
"""
SERVERS = ("training.plan.parameter_server.servers=2",)
M = 4e8


def run(*changes: str, text: str = ETHERNET) -> StepResult:
    return sim.run(loads(text, overrides=changes))


def training(**plan: object) -> Training:
    return Training(SampleModel(1e9, 1e8), 64, precision="fp32", plan=Plan(**plan))  # type: ignore[arg-type]


# -- bytes ------------------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 4096), size=st.floats(1, 1e12), stage=st.sampled_from([0, 1, 2, 3]))
def test_zero_sends_2_or_3_times_the_model(n: int, size: float, stage: int) -> None:
    """arXiv 1910.02054 section 7: 2 psi up to stage 2 and 3 psi for stage 3, times (n-1)/n."""
    passes = 3 if stage == 3 else 2
    assert sent_bytes(stage, size, size, n) == pytest.approx(passes * size * (n - 1) / n)


def test_accumulation_gathers_again_for_every_micro_batch() -> None:
    one, four = (float(sent_bytes(3, 0.0, 1e9, 8, micro_batches=m)) for m in (1, 4))
    assert four == pytest.approx(4 * one)


@given(
    shard=st.sampled_from([1, 2, 4, 8]),
    replicas=st.sampled_from([1, 2, 16]),
    stage=st.sampled_from([1, 2, 3]),
)
def test_hsdp_shards_inside_and_all_reduces_shards_across(shard: int, replicas: int, stage: int) -> None:
    grad, weights = 4e9, 2e9
    inside = (grad + (2 if stage == 3 else 1) * weights) * (shard - 1) / shard
    across = 2 * grad / shard * (replicas - 1) / replicas
    assert sent_bytes(stage, grad, weights, shard * replicas, shard) == pytest.approx(inside + across)


@given(stage=st.sampled_from([0, 1, 3]), shard=st.sampled_from([2, 4, 8, 32]), size=st.floats(1.0, 1e12))
def test_the_messages_of_a_reduction_send_these_bytes(stage: int, shard: int, size: float) -> None:
    data = Group(32, 8, 1)
    groups = {"data": data, **shard_groups(data, shard if stage else 0)}
    sent = sum(
        float(message.message_bytes) * bus_factor(message.collective, groups[message.group].ranks)  # type: ignore[arg-type]
        for message in gradient_messages(Plan(zero_stage=stage), size, groups["shard"].ranks)
    )
    assert sent == pytest.approx(float(sent_bytes(stage, size, 0.0, 32, shard if stage else 0)))


def test_shard_groups_keep_neighbours_together() -> None:
    data = Group(64, 8, 1)
    groups = shard_groups(data, 8)
    assert groups == {"shard": Group(8, 8, 1), "replica": Group(8, 1, 8)}
    small = shard_groups(data, 4)
    assert small == {"shard": Group(4, 4, 2), "replica": Group(16, 2, 4)}
    assert shard_groups(data, 0) == {"shard": data, "replica": Group(1, 1, 8, nodes_apart=8.0)}


def test_arrays_are_answered_like_scalars() -> None:
    many = sent_bytes(3, [1e9, 2e9], 1e9, [8, 16], [0, 4], 2)
    assert many.tolist() == [
        float(sent_bytes(3, 1e9, 1e9, 8, 0, 2)),
        float(sent_bytes(3, 2e9, 1e9, 16, 4, 2)),
    ]


# -- gathers and buckets on the engine --------------------------------------------------------------------------------


def gathered(
    forward: float, gather: float, layers: int, micro_batches: int = 1, *, overlap: bool = True
) -> float:
    cost = StepCost([[ChunkCost(forward, 2 * forward)]], weights_s=[[gather]], layers=[[layers]])
    return play(build(cost, Options(1, micro_batches, overlap_weights=overlap))).step_s


@settings(deadline=None)
@given(layer=st.floats(0.1, 10), share=st.floats(0.01, 1.0), layers=st.integers(2, 60), m=st.integers(1, 5))
def test_gathers_hide_behind_the_layer_before(layer: float, share: float, layers: int, m: int) -> None:
    """With gathers no longer than a layer only the first of the step is exposed."""
    gather = share * layer
    seconds = gathered(layer * layers, gather * layers, layers, m)
    assert seconds == pytest.approx(gather + 3 * m * layer * layers)


@settings(deadline=None)
@given(layer=st.floats(0.1, 1), times=st.floats(2.0, 20.0), layers=st.integers(2, 60), m=st.integers(1, 5))
def test_gathers_longer_than_layers_set_the_pace(layer: float, times: float, layers: int, m: int) -> None:
    """2 m gathers of the whole model, one after another, then the last layer's backward (c = 2 layers here)."""
    gather = times * layer
    seconds = gathered(layer * layers, gather * layers, layers, m)
    assert seconds == pytest.approx(2 * m * layers * gather + 2 * layer)


@settings(deadline=None)
@given(f=st.floats(0.1, 10), g=st.floats(0.1, 10), layers=st.integers(1, 60), m=st.integers(1, 5))
def test_without_overlap_every_gather_is_exposed(f: float, g: float, layers: int, m: int) -> None:
    assert gathered(f, g, layers, m, overlap=False) == pytest.approx(m * (3 * f + 2 * g))


@settings(deadline=None)
@given(layer=st.floats(0.1, 10), gather=st.floats(0.01, 20), layers=st.integers(2, 60), m=st.integers(1, 5))
def test_updated_weights_are_gathered_ahead_of_the_first_forward(
    layer: float, gather: float, layers: int, m: int
) -> None:
    """ZeRO 1 that hides its gather: g + (L-1) max(g, c) + c once, plain passes after."""
    cost = StepCost([[ChunkCost(layer * layers, 1.0)]], weights_s=[[gather * layers]], layers=[[layers]])
    seconds = play(build(cost, Options(1, m, gather_once=True))).step_s
    first = gather + (layers - 1) * max(gather, layer) + layer
    assert seconds == pytest.approx(first + (m - 1) * layer * layers + m * 1.0)


def test_hiding_the_gather_of_zero_1_saves_time_and_no_memory(small: str) -> None:
    plain, hidden = (
        run("training.plan.zero_stage=1", f"training.plan.overlap_parameters={on}", text=small)
        for on in ("false", "true")
    )
    assert hidden.step_s < plain.step_s
    assert hidden.memory == plain.memory


def test_a_model_of_one_layer_gathers_the_next_pass_beside_this_one() -> None:
    assert gathered(1.0, 1.0, 1, 3) == pytest.approx(1 + 9)
    assert gathered(1.0, 5.0, 1, 3) == pytest.approx(6 * 5 + 2)


@settings(deadline=None)
@given(
    backward=st.floats(0.1, 10), reduce=st.floats(0.1, 20), buckets=st.integers(1, 50), m=st.integers(1, 4)
)
def test_buckets_and_the_last_backward_are_a_flow_shop(
    backward: float, reduce: float, buckets: int, m: int
) -> None:
    """c + (B-1) max(c, r) + r: at least one bucket is exposed, and only the last backward covers."""
    cost = StepCost([[ChunkCost(1.0, backward)]], gradients_s=[[reduce]])
    seconds = play(build(cost, Options(1, m, gradient_buckets=buckets))).step_s
    c, r = backward / buckets, reduce / buckets
    last = c + (buckets - 1) * max(c, r) + r
    assert seconds == pytest.approx(m * 1.0 + (m - 1) * backward + last)
    alone = play(build(cost, Options(1, m, gradient_buckets=buckets, overlap_gradients=False))).step_s
    assert alone == pytest.approx(m * (1.0 + backward) + reduce)


def test_buckets_that_queue_are_booked_as_messages() -> None:
    """Ten buckets of 1 s behind a backward of 2 s: 8.2 s of messages are exposed, and nothing is a bubble."""
    cost = StepCost([[ChunkCost(1.0, 2.0)]], gradients_s=[[10.0]], optimizer_s=[0.5])
    parts = account(play(build(cost, Options(1, 1, gradient_buckets=10))))
    assert parts["data communication"] == pytest.approx(10.0 + 0.2 - 2.0)
    assert parts["bubble"] == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    p=st.integers(1, 4),
    m=st.integers(1, 6),
    gather=st.floats(0, 2),
    layers=st.integers(1, 4),
    buckets=st.integers(1, 4),
    tensor=st.floats(0, 0.5),
    overlap=st.booleans(),
)
def test_books_close_with_cut_passes(
    p: int, m: int, gather: float, layers: int, buckets: int, tensor: float, overlap: bool
) -> None:
    chunks = [[ChunkCost(1.0, 2.0, tensor, tensor)]] * p
    cost = StepCost(chunks, 0.1, [[1.0]] * p, [0.2] * p, weights_s=[[gather]] * p, layers=[[layers]] * p)
    timeline = play(build(cost, Options(p, m, overlap_weights=overlap, gradient_buckets=buckets)))
    parts = account(timeline)
    assert sum(parts.values()) == pytest.approx(timeline.step_s, rel=1e-9)
    assert parts["forward"] == pytest.approx(m)
    assert parts["backward"] == pytest.approx(2 * m)


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "total"), [(0, 18.0), (1, 6 + 12 / 8), (2, 2 + 16 / 8), (3, 18 / 8 + (4 + 4) / 10)]
)
def test_zero_shares_out_state_then_gradients_then_weights(stage: int, total: float) -> None:
    """Adam at 18 bytes a parameter, 8 ranks; stage 3 keeps 2 of 10 layers and one gradient unsharded."""
    parts = state_bytes(1e9, 10, training(zero_stage=stage), 8)
    assert sum(parts.values()) == pytest.approx(total * 1e9)


@pytest.mark.parametrize(("stage", "share"), [(0, 1), (1, 1), (2, 1 / 8)])
def test_sixteen_bit_gradients_are_half_as_large_in_memory(stage: int, share: float) -> None:
    whole, half = (
        state_bytes(1e9, 10, training(zero_stage=stage, half_gradients=on), 8) for on in (False, True)
    )
    assert sum(whole.values()) - sum(half.values()) == pytest.approx(2e9 * share)
    assert half["gradients"] == whole["gradients"] / 2


def test_sixteen_bit_gradients_travel_in_half_the_time() -> None:
    """1e8 parameters over 10 Gbit/s: latencies count for little."""
    overlap = "training.plan.overlap_gradients=false"
    whole, half = (
        run(overlap, f"training.plan.half_gradients={on}").parts_s["data communication"]
        for on in ("false", "true")
    )
    assert whole / 2 <= half < 0.55 * whole


def test_hsdp_divides_by_the_shard_group_only() -> None:
    whole = state_bytes(1e9, 10, training(zero_stage=3), 8)
    hybrid = state_bytes(1e9, 10, training(zero_stage=3, shard_ranks=8), 64)
    assert hybrid == whole


def test_what_strategies_keep_beside() -> None:
    assert state_bytes(1e6, 1, training(local_steps=8), 8)["outer optimizer"] == 8e6
    assert state_bytes(1e6, 1, training(offload_optimizer=True), 8)["optimizer state"] == 0
    kept = state_bytes(1e6, 1, training(compression=Compression("top-k")), 8)["compression error"]
    assert kept == 4e6
    served = state_bytes(1e6, 1, training(parameter_server=ParameterServer()), 8)
    assert served["optimizer state"] == 0


# -- parameter servers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("servers", [1, 2, 8, 16])
def test_synchronous_servers_take_the_busier_side(servers: int) -> None:
    """max(2wM / (SB), 2M / B_w) and two latencies, after the backward."""
    result = run(f"training.plan.parameter_server.servers={servers}")
    card = 0.9 * 1.25e9
    wanted = max(2 * 8 * M / (servers * card), 2 * M / card) + 1e-4
    assert result.parts_s["data communication"] == pytest.approx(wanted, rel=1e-6)


def test_asynchronous_servers_are_bound_by_the_cycle_or_by_what_servers_take() -> None:
    """min(w / t, SB / (2M)) updates a second; a step is w updates."""
    compute, card = 32e10 / 1e13, 0.9 * 1.25e9
    few, many = (
        run(
            f"training.plan.parameter_server.servers={n}", "training.plan.parameter_server.asynchronous=true"
        ).step_s
        for n in (2, 64)
    )
    assert few == pytest.approx(2 * 8 * M / (2 * card), rel=1e-6)
    assert many == pytest.approx(compute + 2 * M / card + 1e-4, rel=1e-6)


def test_staleness_lets_jitter_average_out() -> None:
    jitter = "training.plan.parameter_server.jitter_frac=0.5"
    free = "training.plan.parameter_server.asynchronous=true"
    wide = "training.plan.parameter_server.servers=64"
    bound = [
        run(jitter, free, wide, f"training.plan.parameter_server.staleness={s}").step_s for s in (0, 1, 3, 8)
    ]
    lock_step = run(jitter, wide).step_s
    assert bound[0] == pytest.approx(lock_step, rel=1e-6)
    assert bound == sorted(bound, reverse=True)
    even = run(wide, free).step_s
    assert run(jitter, free, wide).step_s == pytest.approx(even, rel=1e-6)
    excess = np.array(bound) - even
    assert (excess / excess[0] <= 1 / np.sqrt([1, 2, 4, 9]) + 1e-9).all()
    assert excess[3] / excess[2] == pytest.approx(3 / 8)  # a pack held together by its bound: s^2 / b


# -- local steps and compression --------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 10, 500])
def test_local_steps_divide_the_exchange(steps: int) -> None:
    every = run().parts_s["data communication"]
    rare = run(f"training.plan.local_steps={steps}").parts_s["data communication"]
    outer = 26 * 1e8 / (0.85 * 500e9)
    assert rare == pytest.approx((every + outer) / steps, rel=1e-9)


@pytest.mark.parametrize("method", ["fp16", "fp8", "top-k", "power-sgd", "1-bit"])
def test_compression_pays_on_slow_links_and_never_on_fast_ones(method: str) -> None:
    change = f"training.plan.compression.method={method}"
    assert run(change).step_s < run().step_s
    fast = ("cluster.pools.0.system.nic_bytes_per_s=1e15",
            "cluster.pools.0.accelerator.host_link_bytes_per_s=1e15")  # fmt: skip
    assert run(change, *fast).step_s > run(*fast).step_s


@given(
    method=st.sampled_from(["fp16", "fp8", "top-k", "power-sgd", "1-bit"]),
    n=st.integers(2, 4096),
    values=st.floats(1e6, 1e11),
)
def test_compression_always_costs_passes_over_the_gradient(method: str, n: int, values: float) -> None:
    packed = compressed(training(compression=Compression(method)), values, n)
    assert packed.memory_bytes >= 4 * values
    assert packed.overhead_s(1e12, 1e14) > 0


def test_selecting_compression_breaks_overlap() -> None:
    assert overlaps(Plan())
    assert overlaps(Plan(compression=Compression("fp16")))
    for plan in (
        Plan(compression=Compression("top-k")),
        Plan(compression=Compression("power-sgd")),
        Plan(local_steps=2),
        Plan(parameter_server=ParameterServer()),
        Plan(overlap_gradients=False),
    ):
        assert not overlaps(plan)


def test_what_workers_send_to_servers() -> None:
    def size(**compression: object) -> float:
        return server_message_bytes(training(compression=Compression(**compression)), 1e6, 8)  # type: ignore[arg-type]

    assert size() == 4e6
    assert size(method="fp16") == 2e6
    assert size(method="1-bit") == pytest.approx(4e6 / 32)
    assert size(method="top-k", keep_frac=0.01) == pytest.approx((8e4 + 8 * 8e4) / 2)
    assert size(method="top-k", keep_frac=0.5) == pytest.approx((4e6 + 4e6) / 2)


# -- whole scenarios --------------------------------------------------------------------------------------------------


def test_fsdp_of_a_transformer_trades_memory_for_messages(small: str) -> None:
    plan = ("training.plan.tensor=1", "training.plan.pipeline=1", "training.plan.virtual_stages=1",
            "training.plan.sequence_parallel=false")  # fmt: skip
    steps = {z: run(*plan, f"training.plan.zero_stage={z}", text=small) for z in (0, 1, 2, 3)}
    totals = [steps[z].memory[0].total_bytes for z in (0, 1, 2, 3)]
    assert totals == sorted(totals, reverse=True)
    exposed = run(*plan, "training.plan.zero_stage=3", "training.plan.overlap_weights=false", text=small)
    assert exposed.step_s > steps[3].step_s
    assert exposed.parts_s["data communication"] > steps[3].parts_s["data communication"]
    hybrid = run(*plan, "training.plan.zero_stage=3", "training.plan.shard_ranks=8", text=small)
    assert hybrid.memory[0].total_bytes > steps[3].memory[0].total_bytes


def test_offloading_frees_memory_and_costs_time(small: str) -> None:
    here, away = run(text=small), run("training.plan.offload_optimizer=true", text=small)
    assert away.parts_s["optimizer"] > here.parts_s["optimizer"]
    assert away.memory[0].total_bytes < here.memory[0].total_bytes


def test_muon_is_charged_for_its_products(small: str) -> None:
    momentum, muon = (run(f"training.optimizer={name}", text=small) for name in ("momentum", "muon"))
    assert muon.parts_s["optimizer"] > 1.5 * momentum.parts_s["optimizer"]
    shared = run("training.optimizer=muon", "training.plan.zero_stage=1", text=small)
    assert shared.parts_s["optimizer"] < 0.7 * muon.parts_s["optimizer"]


def test_fsdp_sends_gradients_layer_by_layer() -> None:
    assert [buckets(Plan(zero_stage=z), 32) for z in (0, 1, 3)] == [1, 1, 32]
    assert buckets(Plan(gradient_buckets=4, zero_stage=3), 32) == 4


def test_more_buckets_hide_more(small: str) -> None:
    one, many = (run(f"training.plan.gradient_buckets={n}", text=small).step_s for n in (1, 4))
    assert many < one


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        (["training.plan.shard_ranks=2"], "training.plan.shard_ranks"),
        (["training.plan.shard_ranks=3", "training.plan.zero_stage=3"], "training.plan.shard_ranks"),
        (["training.plan.zero_stage=4"], "training.plan.zero_stage"),
        (["training.plan.zero_stage=1", "training.plan.local_steps=4"], "training.plan.zero_stage"),
        (
            ["training.plan.zero_stage=1", "training.plan.compression.method=top-k"],
            "training.plan.zero_stage",
        ),
        (
            ["training.plan.compression.method=top-k", "training.plan.compression.keep_frac=0"],
            "training.plan.compression.keep_frac",
        ),
        (["training.plan.compression.method=zip"], "training.plan.compression.method"),
        ([*SERVERS, "training.plan.compression.method=power-sgd"], "training.plan.compression.method"),
        ([*SERVERS, "training.plan.local_steps=4"], "training.plan.parameter_server"),
        (["training.optimizer=muon", "training.plan.offload_optimizer=true"], "training.optimizer"),
    ],
)
def test_plans_that_do_not_go_together_are_refused(changes: list[str], path: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        loads(ETHERNET, overrides=changes)
    assert path in [fault.path for fault in refused.value.faults]


def test_servers_on_slow_ethernet_gain_from_compression_and_from_not_waiting() -> None:
    folder = Path(__file__).parents[2] / "scenarios"
    plain, cast, free = (
        sim.run(sim.load(folder / f"parameter-server-10gbe{kind}.toml"))
        for kind in ("", "-compressed", "-asynchronous")
    )
    waits = [result.parts_s["data communication"] for result in (plain, cast, free)]
    assert waits[1] < 0.6 * waits[0]
    assert free.step_s == pytest.approx(2 * 16 * 102.4e6 / (8 * 0.9 * 1.25e9), rel=1e-6)
    assert free.step_s < plain.step_s


def test_a_model_without_parameters_exchanges_nothing() -> None:
    assert run("training.model.parameters=0").parts_s["data communication"] == 0
