"""Several tasks in one step: sums of single steps, shared weights counted once, faults told."""

from __future__ import annotations

import pytest

import sim
from sim.results.step import StepResult
from sim.results.step_tables import step_document
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads

JOB = """
name = "lesson"
[[cluster.pools]]
system = "dgx-a100-80gb"
nodes = 1
[training]
model = "{model}"
sequence = {sequence}
global_batch = {batch}
{tasks}
[training.plan]
micro_batch = 2
overlap_gradients = false
{plan}
"""


def job(model: str, batch: int, tasks: str = "", plan: str = "", sequence: int = 1024) -> StepResult:
    return sim.run(loads(JOB.format(model=model, batch=batch, tasks=tasks, plan=plan, sequence=sequence)))


def task(samples: int, more: str = "", name: str = "second") -> str:
    return f'[[training.tasks]]\nname = "{name}"\nsamples = {samples}\n{more}'


@pytest.mark.parametrize("plan", ["", "zero_stage = 1", "tensor = 2", 'recompute = "full"'])
def test_a_task_like_the_main_one_changes_nothing(plan: str) -> None:
    one, two = job("gpt2-large", 64, plan=plan), job("gpt2-large", 64, task(16), plan)
    assert two.step_s == pytest.approx(one.step_s, rel=1e-9)
    assert two.memory[0].total_bytes == pytest.approx(one.memory[0].total_bytes)
    assert step_document(two)["utilisation"][0]["frac"] == pytest.approx(
        step_document(one)["utilisation"][0]["frac"]
    )


def test_two_models_take_the_sum_of_their_steps() -> None:
    """Passes, exchange and update of each, one after the other; the state of both lies in memory."""
    both = job("gpt2-large", 64, task(32, 'model = "gpt2"\nsequence = 512'))
    first, second = job("gpt2-large", 32), job("gpt2", 32, sequence=512)
    assert both.step_s == pytest.approx(first.step_s + second.step_s, rel=1e-9)
    for cause, seconds in both.parts_s.items():
        assert seconds == pytest.approx(first.parts_s[cause] + second.parts_s[cause], abs=1e-9)
    for part in ("weights", "gradients", "optimizer state"):
        sizes = [result.memory[0].parts_bytes[part] for result in (both, first, second)]
        assert sizes[0] == pytest.approx(sizes[1] + sizes[2])
    kept = [result.memory[0].parts_bytes["activations"] for result in (both, first, second)]
    assert kept[0] == max(kept[1:])
    flop = [step_document(result)["utilisation"][0]["flop_per_step"] for result in (both, first, second)]
    assert flop[0] == pytest.approx(flop[1] + flop[2])
    assert step_document(both)["tokens_per_s"] == pytest.approx((32 * 1024 + 32 * 512) / both.step_s)


def test_a_shared_trunk_is_exchanged_once() -> None:
    """Shorter sequences of another task on the same weights shorten the passes alone."""
    long, mixed = job("gpt2-large", 64), job("gpt2-large", 64, task(32, "sequence = 256"))
    assert mixed.parts_s["forward"] < long.parts_s["forward"]
    for cause in ("data communication", "optimizer"):
        assert mixed.parts_s[cause] == pytest.approx(long.parts_s[cause])


@pytest.mark.parametrize(
    ("tasks", "plan", "told"),
    [
        (task(64), "", "leave 0 of 64 samples"),
        (task(24), "", "multiple of data parallel 8 x micro_batch 2"),
        (task(16) + "\n" + task(16), "", "name of another task"),
        (task(16), "pipeline = 2", "need pipeline = 1"),
        (task(16, 'model = "gpt3-175"'), "", "did you mean|nearest"),
        (task(16, "sample = 3"), "", "did you mean 'samples'"),
        (task(16, 'model = "resnet-50"'), "", "reads no tokens"),
    ],
)
def test_what_does_not_go_together_is_refused(tasks: str, plan: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        loads(JOB.format(model="gpt2-large", batch=64, tasks=tasks, plan=plan, sequence=1024))
