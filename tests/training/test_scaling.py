"""FP8 scales: what agreeing on them costs, who agrees, and what a framework does unless asked otherwise."""

from __future__ import annotations

import pytest

import sim
from sim.results.step import StepResult
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads
from sim.spec.parallelism import Plan
from sim.training.placement import groups
from sim.training.scaling import GROUP

JOB = """
name = "fp8"
[[cluster.pools]]
system = "dgx-h100"
nodes = 4
[training]
model = "llama-3.1-8b"
sequence = 4096
global_batch = 64
precision = "fp8"
stack = "nemo"
[training.plan]
tensor = 2
pipeline = 2
sequence_parallel = true
"""


def run(*changes: str) -> StepResult:
    return sim.run(loads(JOB, overrides=changes))


def agreed_s(*changes: str) -> float:
    """How much longer a step takes whose scales are delayed."""
    late, own = (run(f"training.fp8_scaling={way}", *changes).step_s for way in ("delayed", "current"))
    return late - own


def test_every_pass_of_a_micro_batch_ends_with_one_all_reduce() -> None:
    """So the time grows with the micro-batches, and with the chunks, as each all-reduce takes its latency alone."""
    one = ("training.plan.pipeline=1", "training.plan.sequence_parallel=false")
    few = agreed_s(*one, "training.global_batch=64")  # 4 micro-batches
    many = agreed_s(*one, "training.global_batch=256")  # 16
    assert few > 0
    assert many == pytest.approx(4 * few, rel=1e-6)
    plain = agreed_s("training.plan.virtual_stages=1")
    assert agreed_s("training.plan.virtual_stages=4") > 1.5 * plain


def test_it_takes_longer_the_more_ranks_share_the_tensors() -> None:
    fewer, more = (
        agreed_s(f"cluster.pools.0.nodes={nodes}", f"training.global_batch={16 * nodes}") for nodes in (4, 64)
    )
    assert fewer < more < 4 * fewer  # as a tree: with the logarithm of the ranks, not with the ranks


def test_all_ranks_of_a_stage_agree() -> None:
    plan = Plan(tensor=4, context=2, pipeline=2, expert=2)
    talking = groups(plan, 8, 8, 8)
    assert talking[GROUP].ranks == 4 * 2 * 8
    assert talking[GROUP].ranks_per_domain == 8


@pytest.mark.parametrize(
    ("stack", "way"), [("nemo", "delayed"), ("megatron-bridge", "current"), ("torchtitan", "current")]
)
def test_a_framework_scales_as_its_documentation_says(stack: str, way: str) -> None:
    usual, asked = (
        run(f"training.stack={stack}", f"training.fp8_scaling={name}").step_s for name in ("stack", way)
    )
    assert usual == asked


def test_only_fp8_has_scales_to_choose() -> None:
    with pytest.raises(ScenarioError, match=r"training\.fp8_scaling.*only fp8 tensors"):
        run("training.precision=bf16", "training.fp8_scaling=delayed")
    assert run("training.precision=bf16").step_s > run().step_s
