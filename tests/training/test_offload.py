"""Activations in host memory and layers recomputed one by one: closed forms, bounds, and both ends of each knob."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.results.step import StepResult
from sim.results.step_tables import step_document
from sim.results.timeline import account
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads
from sim.training.engine import play
from sim.training.program import build
from sim.training.program_parts import ChunkCost, Options, StepCost

JOB = """
name = "small"
[[cluster.pools]]
system = "dgx-a100-80gb"
nodes = 1
[training]
model = "opt-1.3b"
sequence = 2048
global_batch = 32
[training.plan]
micro_batch = 1
{plan}
"""


def job(plan: str = "") -> StepResult:
    return sim.run(loads(JOB.format(plan=plan)))


@settings(max_examples=60, deadline=None)
@given(
    forward=st.floats(0.1, 3),
    backward=st.floats(0.1, 6),
    copy=st.floats(0, 5),
    m=st.integers(1, 6),
)
def test_a_pass_takes_the_longer_of_kernels_and_copies(
    forward: float, backward: float, copy: float, m: int
) -> None:
    timeline = play(build(StepCost([[ChunkCost(forward, backward, offload_s=copy)]]), Options(1, m)))
    assert timeline.step_s == pytest.approx(m * (max(forward, copy) + max(backward, copy)))
    parts = account(timeline)
    assert sum(parts.values()) == pytest.approx(timeline.step_s, rel=1e-9)
    assert parts["offload"] == pytest.approx(m * (max(copy - forward, 0) + max(copy - backward, 0)), abs=1e-9)


@pytest.mark.parametrize("schedule", ["1f1b", "gpipe"])
def test_copies_that_passes_hide_cost_nothing_in_a_pipeline(schedule: str) -> None:
    plain, copied = (
        play(build(StepCost([[ChunkCost(1.0, 2.0, offload_s=copy)]] * 4, 0.1), Options(4, 8, 1, schedule)))
        for copy in (0.0, 1.0)
    )
    assert copied.step_s == pytest.approx(plain.step_s)


def test_activations_leave_the_device_but_for_two_layers() -> None:
    plain, half, whole = (job(f"offload_activations = {share}").memory[0] for share in (0.0, 0.5, 1.0))
    layer = plain.parts_bytes["activations"] / 24  # one micro-batch, 24 layers
    assert whole.parts_bytes["activations"] == pytest.approx(2 * layer)
    assert half.parts_bytes["activations"] == pytest.approx(13 * layer)
    others = [{**use.parts_bytes, "activations": 0} for use in (plain, half, whole)]
    assert others[0] == others[1] == others[2]


def test_a_slow_host_link_shows_in_the_step() -> None:
    slow = 'cluster.pools.0.accelerator={host_link_bytes_per_s = "1 GB/s"}'
    text = JOB.format(plan="offload_activations = 1.0")
    result = sim.run(loads(text, overrides=[slow]))
    kept = job().memory[0].parts_bytes["activations"]
    copies = 4 * 2 * kept / (0.8 * 1e9)  # four micro-batches, there and back
    assert result.parts_s["offload"] + result.parts_s["forward"] + result.parts_s[
        "backward"
    ] == pytest.approx(copies, rel=0.01)
    assert step_document(result)["bound_by"] == "waiting for the host link"


def test_recomputed_layers_lie_between_none_and_all() -> None:
    """Step, memory and HFU are straight lines in the number of layers, with the two switches at the ends."""
    plan = 'recompute = "full"\nrecompute_layers = {}'
    runs = [job(plan.format(n)) for n in (0, 12, 24)]
    ends = [job(), job('recompute = "full"')]
    for run, end in ((runs[0], ends[0]), (runs[2], ends[1])):
        assert run.step_s == pytest.approx(end.step_s, rel=1e-9)
        assert run.memory[0].total_bytes == pytest.approx(end.memory[0].total_bytes, rel=1e-9)
    assert 2 * runs[1].step_s == pytest.approx(runs[0].step_s + runs[2].step_s, rel=1e-6)
    hfu = [
        next(row["flop_per_step"] for row in step_document(run)["utilisation"] if row["name"] == "HFU")
        for run in runs
    ]
    assert 2 * hfu[1] == pytest.approx(hfu[0] + hfu[2])


def test_the_first_layers_of_every_chunk_are_recomputed() -> None:
    plan = 'tensor = 2\npipeline = 2\nvirtual_stages = 2\nrecompute = "full"\nrecompute_layers = {}'
    none, one, six = (job(plan.format(n)).parts_s["backward"] for n in (0, 1, 6))
    assert one - none == pytest.approx((six - none) / 6)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ('pipeline = 2\nschedule = "zb-h1"\noffload_activations = 0.5', "activations in host memory"),
        ("recompute_layers = 3", "nothing is recomputed"),
        ('recompute = "full"\nrecompute_layers = 25', "at most the 24 layers"),
        ("offload_activations = 1.5", "at most 1"),
    ],
)
def test_what_does_not_go_together_is_refused(plan: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        loads(JOB.format(plan=plan))


@pytest.mark.parametrize("plan", ["", "zero_stage = 3", "tensor = 2"])
def test_autocast_moves_the_master_copy_and_casts_every_micro_batch(plan: str) -> None:
    """18 bytes a parameter as with a master copy (4 + 2 + 4 + 8), and 6 bytes a parameter moved a micro-batch."""
    text = JOB.format(plan=plan)
    plain, cast = (sim.run(loads(text, overrides=[f"training.autocast={on}"])) for on in ("false", "true"))
    assert cast.memory[0].total_bytes == pytest.approx(plain.memory[0].total_bytes)
    parts = cast.memory[0].parts_bytes
    assert parts["weights"] == pytest.approx(2 * parts["cast weights"])
    held = plain.overheads["optimizer_bandwidth_frac"].value * 2.039e12
    ranks = 2 if "tensor" in plan else 1
    extra = cast.parts_s["forward"] - plain.parts_s["forward"]
    batches = plain.micro_batches
    assert extra == pytest.approx(batches * 6 * 1.3158e9 / ranks / held, rel=0.01)


def test_autocast_is_refused_where_weights_are_not_cast() -> None:
    for changes in (["training.precision=fp32"], ["training.plan.zero_stage=1"]):
        with pytest.raises(ScenarioError, match="expected false"):
            loads(JOB.format(plan=""), overrides=["training.autocast=true", *changes])
