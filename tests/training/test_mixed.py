"""Unlike pools: what can be worked out by hand, what brute force finds, and what must not change."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.results.step import StepResult
from sim.results.step_tables import step_document
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads
from sim.training.engine import play
from sim.training.program import build, build_together
from sim.training.program_parts import ChunkCost, Options, StepCost
from sim.training.uneven import pool_split

FAST, SLOW = "2 GFLOP/s", "1 GFLOP/s"


def pool(name: str, rate: str, nodes: int = 4, more: str = "") -> str:
    return f"""
[[cluster.pools]]
name = "{name}"
nodes = {nodes}
system = {{ gpus_per_node = 1 }}
accelerator = {{ flop_per_s = {{ fp32 = "{rate}" }}, memory_bytes = "4 GiB", memory_bytes_per_s = "10 GB/s" }}
{more}
"""


def by_arithmetic(pools: str, training: str = "") -> StepResult:
    """1 GFLOP a sample on an ideal machine: everything can be worked out by hand."""
    text = f"""
name = "two speeds"
profile = "ideal"
{pools}
[training]
model = {{ sample_flop = "1 GFLOP" }}
global_batch = 48
precision = "fp32"
optimizer = "sgd"
{training}
"""
    return sim.run(loads(text))


GPT = """
name = "small"
{pools}
[training]
model = "opt-1.3b"
sequence = 1024
global_batch = 32
precision = "fp16"
{training}
[training.plan]
micro_batch = 1
{plan}
"""
A100 = '[[cluster.pools]]\nname = "a"\nsystem = "dgx-a100-80gb"\nnodes = 1\n'
H100 = '[[cluster.pools]]\nname = "h"\nsystem = "dgx-h100"\nnodes = 1\n'


def gpt(pools: str, plan: str = "", training: str = "") -> StepResult:
    return sim.run(loads(GPT.format(pools=pools, plan=plan, training=training)))


def test_samples_follow_speed() -> None:
    """48 samples on four devices of 1 and four of 2 GFLOP/s: 4 and 8 each, 4 s; equal shares take 6 s."""
    pools = pool("slow", SLOW) + pool("fast", FAST)
    shared = by_arithmetic(pools)
    assert shared.step_s == pytest.approx(4.0)
    assert [stage.samples for stage in shared.stages] == [16, 32]
    assert by_arithmetic(pools, "shares = [24, 24]").step_s == pytest.approx(6.0)


def test_the_slowest_pool_decides_and_the_other_waits() -> None:
    result = by_arithmetic(pool("slow", SLOW) + pool("fast", FAST), "shares = [24, 24]")
    rows = {row["pool"]: row for row in step_document(result)["pools"]}
    assert rows["slow"]["busy_frac"] == pytest.approx(1.0)
    assert rows["fast"]["busy_frac"] == pytest.approx(0.5)
    assert sum(result.parts_s.values()) == pytest.approx(result.step_s, rel=1e-9)
    assert result.parts_s["bubble"] == pytest.approx(6.0 / 4)  # half the devices idle half the time


def test_a_stated_efficiency_slows_a_pool() -> None:
    text = GPT.format(pools=A100, plan="", training="")
    half, whole = (
        sim.run(loads(text, overrides=[f"cluster.pools.0.efficiency_frac={frac}"])) for frac in (0.25, 0.5)
    )
    assert half.parts_s["optimizer"] == pytest.approx(2 * whole.parts_s["optimizer"])
    assert all(use.leans_on == "efficiency stated in the scenario" for use in half.uses)
    assert all(use.seconds == pytest.approx(4 * use.lower_bound_s) for use in half.uses)


@pytest.mark.parametrize(
    "plan", ["", "tensor = 2\npipeline = 2", "pipeline = 4\nvirtual_stages = 2", "zero_stage = 3"]
)
def test_two_pools_of_one_kind_are_one_pool(plan: str) -> None:
    """Copies that only differ by the name of their pool take the step of one pool of twice the size."""
    two = gpt(A100 + A100.replace('"a"', '"b"'), plan)
    one = gpt(A100.replace("nodes = 1", "nodes = 2"), plan)
    assert two.step_s == pytest.approx(one.step_s, rel=1e-9)
    for cause, seconds in one.parts_s.items():
        assert two.parts_s[cause] == pytest.approx(seconds, rel=1e-9, abs=1e-12)
    assert [use.parts_bytes for use in two.memory[: len(one.memory)]] == [
        use.parts_bytes for use in one.memory
    ]


def test_stages_on_two_pools_of_one_kind_are_a_pipeline() -> None:
    """With stages of two nodes named, only the links between them may differ from one pool."""
    plan = "tensor = 2\npipeline = 4\n"
    two = gpt(
        A100 + A100.replace('"a"', '"b"'),
        plan + 'stages = ["a", "a", "b", "b"]\nlayers_per_stage = [6, 6, 6, 6]',
    )
    one = gpt(A100.replace("nodes = 1", "nodes = 2"), plan)
    assert two.step_s == pytest.approx(one.step_s, rel=0.02)


def test_layers_go_to_the_faster_stages() -> None:
    plan = 'tensor = 4\npipeline = 4\nstages = ["a", "a", "h", "h"]\n'
    dealt = gpt(A100 + H100, plan)
    even = gpt(A100 + H100, plan + "layers_per_stage = [6, 6, 6, 6]")
    layers = [stage.layers for stage in dealt.stages]
    assert sum(layers) == 24
    assert layers[0] < layers[-1]
    assert dealt.step_s < even.step_s


def test_no_other_split_of_the_layers_is_faster() -> None:
    """Of all splits over two stages, played in full, the one dealt out is within a layer's time of the best."""
    plan = 'tensor = 8\npipeline = 2\nstages = ["a", "h"]\n'
    best = min(gpt(A100 + H100, plan + f"layers_per_stage = [{n}, {24 - n}]").step_s for n in range(6, 13))
    assert gpt(A100 + H100, plan).step_s <= best * (1 + 1 / 12)


def test_a_full_device_gets_fewer_layers() -> None:
    """The faster pool has room for few layers only: the slower one takes the rest."""
    little = H100.replace(
        'system = "dgx-h100"', 'system = "dgx-h100"\naccelerator = { memory_bytes = "2 GiB" }'
    )
    plan = 'tensor = 8\npipeline = 2\nstages = ["a", "h"]\n'
    free, tight = gpt(A100 + H100, plan), gpt(A100 + little, plan)
    assert tight.stages[1].layers < free.stages[1].layers
    assert all(use.fits for use in tight.memory)


def test_a_message_between_pools_takes_the_slower_side() -> None:
    """A hundredth of the bandwidth on one side is a hundredth on the link, whichever side it is."""
    slow_nic = 'system = {{ base = "{}", nic_bytes_per_s = "0.1 GB/s" }}'
    plan = (
        'tensor = 8\npipeline = 2\nstages = ["a", "h"]\nlayers_per_stage = [10, 14]\noverlap_pipeline = false'
    )
    fine = gpt(A100 + H100, plan)
    slow_a = gpt(A100.replace('system = "dgx-a100-80gb"', slow_nic.format("dgx-a100-80gb")) + H100, plan)
    slow_h = gpt(A100 + H100.replace('system = "dgx-h100"', slow_nic.format("dgx-h100")), plan)
    sent = [result.parts_s["pipeline communication"] for result in (fine, slow_a, slow_h)]
    assert sent[1] > 5 * sent[0]
    assert sent[1] == pytest.approx(sent[2], rel=0.2)


@settings(max_examples=60, deadline=None)
@given(
    first=st.tuples(st.integers(1, 6), st.floats(0.1, 3)),
    second=st.tuples(st.integers(1, 6), st.floats(0.1, 3)),
    reduce=st.floats(0, 2),
)
def test_copies_leave_the_reduction_together(
    first: tuple[int, float], second: tuple[int, float], reduce: float
) -> None:
    """Without a pipeline: max over copies of m t, the reduction, the update."""
    copies = [
        (StepCost([[ChunkCost(t, 2 * t)]], gradients_s=[[reduce]], optimizer_s=[0.5]), Options(1, m))
        for m, t in (first, second)
    ]
    slowest = max(m * 3 * t for m, t in (first, second))
    assert play(build_together(copies)).step_s == pytest.approx(slowest + reduce + 0.5)


def test_one_link_of_a_pipeline_may_be_slow() -> None:
    """Two stages more than one link: a list of equal times is the plain number, and each link counts once each way."""
    chunks = [[ChunkCost(1.0, 2.0)]] * 3
    plain, listed, slow = (
        play(build(StepCost(chunks, sends), Options(3, 1))).step_s
        for sends in (0.25, [0.25, 0.25, 0.25], [0.25, 1.25, 0.25])
    )
    assert plain == listed
    assert slow == pytest.approx(plain + 2.0)


@settings(max_examples=150, deadline=None)
@given(
    pools=st.lists(st.tuples(st.integers(1, 3), st.floats(0.1, 5), st.floats(0, 3)), min_size=1, max_size=3),
    more=st.integers(0, 14),
)
def test_no_deal_of_micro_batches_is_faster(pools: list[tuple[int, float, float]], more: int) -> None:
    copies, each, fixed = (list(column) for column in zip(*pools, strict=True))
    batches = sum(copies) + more
    most, every = pool_split(batches, copies, each, fixed)  # type: ignore[arg-type]
    assert sum(every) == batches
    assert all(n * (m - 1) < total <= n * m for n, m, total in zip(copies, most, every, strict=True))
    ends = np.asarray(most) * each + fixed
    best = min(
        max(np.asarray(deal) * each + fixed)
        for deal in product(range(1, batches + 1), repeat=len(pools))
        if sum(n * m for n, m in zip(copies, deal, strict=True)) >= batches
    )
    assert max(ends) == pytest.approx(best)


@pytest.mark.parametrize(
    ("plan", "training", "told"),
    [
        ('pipeline = 2\nstages = ["a", "x"]', "", "is no pool"),
        ('pipeline = 2\nstages = ["a"]', "", "one pool for each of the 2"),
        ('pipeline = 4\nstages = ["a", "a", "a", "h"]', "", "3 of 4 stages are here"),
        ('pipeline = 2\nstages = ["a", "a"]', "", "leaves the pool h idle"),
        ('pipeline = 2\nschedule = "dualpipe"\nstages = ["a", "h"]', "", "DualPipe"),
        ('pipeline = 2\nschedule = "dualpipe"', "", "training.shares"),
        ('pipeline = 2\nstages = ["a", "h"]\nlayers_per_stage = [1, 2]', "", "adds up to 3"),
        ("pipeline = 2\nlayers_per_stage = [24]", "", "one number for each of the 2"),
        ("", "shares = [30, 3]", "adds up to 33"),
        ("", "shares = [32]", "one number for each of the 2 pools"),
        ("", "shares = [15, 17]", "multiple of the copies in a"),
        ("tensor = 16", "", "multiple of a copy's 16"),
        ("[training.plan.parameter_server]", "", "workers of one pool"),
        ('pipeline = 2\nstages = ["a", "h"]', "shares = [16, 16]", "every copy runs through all pools"),
    ],
)
def test_what_does_not_go_with_the_pools_is_refused(plan: str, training: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        loads(GPT.format(pools=A100 + H100, plan=plan, training=training))


def test_pools_of_one_name_are_refused() -> None:
    with pytest.raises(ScenarioError, match="name of another pool"):
        loads(GPT.format(pools=A100 + A100, plan="", training=""))


def test_a_device_without_the_format_computes_in_a_wider_one_or_is_refused() -> None:
    fpga = '[[cluster.pools]]\nname = "f"\nsystem = {{ base = "fpga-u280-node", accelerator = "{}" }}\nnodes = 1\n'
    result = gpt(A100 + fpga.format("fpga-stratix-10-mx") + "efficiency_frac = 0.3\n")
    assert [row["computes_in"] for row in step_document(result)["pools"]] == ["fp16", "fp32"]
    with pytest.raises(ScenarioError, match="fpga-alveo-u280 computes in int8"):
        loads(GPT.format(pools=A100 + fpga.format("fpga-alveo-u280"), plan="", training=""))
