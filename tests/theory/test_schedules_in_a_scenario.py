"""Zero-bubble and DualPipe schedules as a scenario asks for them: what is refused, what they gain, what they hold."""

from __future__ import annotations

import pytest

import sim
from sim.results.step import StepResult
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads

PIPELINE = ("training.plan.tensor=1", "training.plan.pipeline=4", "training.plan.virtual_stages=1")


def run(text: str, schedule: str, *changes: str) -> StepResult:
    return sim.run(loads(text, overrides=[*PIPELINE, f"training.plan.schedule={schedule}", *changes]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["training.plan.schedule=zb-h1", "training.plan.virtual_stages=2"], "ZB-H1 has no virtual stages"),
        (
            ["training.plan.schedule=dualpipe", "training.plan.virtual_stages=2"],
            "DualPipe has no virtual stages",
        ),
        (["training.plan.schedule=dualpipe", "training.plan.pipeline=1"], "even number of stages"),
        (["training.plan.schedule=dualpipe", "training.global_batch=20"], "at least 2 x pipeline"),
        (["training.plan.virtual_stages=2", "training.global_batch=8"], "at least as many micro-batches"),
        (["training.plan.schedule=zb-h9"], "zb-h1"),
    ],
)
def test_combinations_that_do_not_exist_are_refused(small: str, changes: list[str], words: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        loads(small, overrides=[*PIPELINE, "training.plan.micro_batch=1", *changes])
    assert words in str(refused.value)


def test_interleaving_takes_any_number_of_micro_batches(small: str) -> None:
    result = run(small, "1f1b", "training.plan.virtual_stages=2", "training.plan.micro_batch=1",
                 "training.global_batch=20")  # fmt: skip
    assert result.micro_batches % 4 != 0
    assert abs(sum(result.parts_s.values()) / result.step_s - 1) < 1e-9


def test_zero_bubble_fills_part_of_the_bubble_with_the_same_work(small: str) -> None:
    plain, split = run(small, "1f1b"), run(small, "zb-h1")
    assert split.step_s < plain.step_s
    assert split.parts_s["bubble"] < plain.parts_s["bubble"]
    for cause in ("forward", "backward", "optimizer"):
        assert split.parts_s[cause] == pytest.approx(plain.parts_s[cause])
    weight = sum(task.duration_s for task in split.timeline.tasks if task.kind == "weight")
    assert 0.25 < weight / split.timeline.ranks / split.parts_s["backward"] < 0.55


def test_dualpipe_holds_the_weights_twice_and_one_micro_batch_more(small: str) -> None:
    plain, dual = run(small, "1f1b"), run(small, "dualpipe")
    assert dual.parts_s["forward"] == pytest.approx(plain.parts_s["forward"])
    weights = [sum(use.parts_bytes["weights"] for use in result.memory) for result in (plain, dual)]
    assert weights[1] == pytest.approx(2 * weights[0])
    activations = [[use.parts_bytes["activations"] for use in result.memory] for result in (plain, dual)]
    assert activations[1][0] == pytest.approx(activations[0][0] * 5 / 4)
    assert abs(sum(dual.parts_s.values()) / dual.step_s - 1) < 1e-9


def test_dualpipe_reduces_gradients_between_the_two_ranks_of_a_stage(small: str) -> None:
    """One copy of the model has nobody to reduce with, save that DualPipe holds each stage twice."""
    alone = ("cluster.pools.0.nodes=1", "training.plan.tensor=2", "training.global_batch=32")
    plain, dual = run(small, "1f1b", *alone), run(small, "dualpipe", *alone)
    assert plain.data == dual.data == 1
    assert plain.parts_s["data communication"] == 0 < dual.parts_s["data communication"]
    sharded = [run(small, name, "training.plan.zero_stage=1") for name in ("1f1b", "dualpipe")]
    state = [sum(use.parts_bytes["optimizer state"] for use in result.memory) for result in sharded]
    assert state[1] == pytest.approx(state[0])
    assert sharded[1].parts_s["optimizer"] == pytest.approx(sharded[0].parts_s["optimizer"], rel=0.3)
