"""Context and expert parallelism: who talks to whom, what is refused, what a ring hides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads
from sim.spec.parallelism import Plan
from sim.training.placement import groups

DEGREES = st.sampled_from([1, 2, 4, 8])


@given(t=DEGREES, c=DEGREES, p=DEGREES, data=DEGREES, e=DEGREES, whole=st.booleans())
def test_groups_cover_the_devices(t: int, c: int, p: int, data: int, e: int, whole: bool) -> None:
    """Tensor x data (context in it) x pipeline is every device; so is expert tensor x expert x its data x pipeline."""
    plan = Plan(tensor=t, context=c, pipeline=p, expert=e, split_experts=not whole)
    found = groups(plan, data, 8, 8)
    assert plan.model_ranks * data == t * found["data"].ranks * p
    if (t * c * data) % (plan.expert_tensor * e) == 0:
        every = plan.expert_tensor * e * found["expert data"].ranks
        assert every == t * c * data
        assert plan.expert_replicas(c * data) == found["expert data"].ranks
    for group in found.values():
        assert group.ranks % group.ranks_per_domain == 0
        assert group.concurrent >= 1


def test_experts_stay_in_the_node_while_they_fit() -> None:
    found = groups(Plan(expert=8), 32, 8, 8)
    assert (found["expert"].ranks, found["expert"].ranks_per_domain) == (8, 8)
    assert (found["expert data"].ranks, found["expert data"].ranks_per_domain) == (4, 1)
    wide = groups(Plan(expert=64, pipeline=16), 128, 8, 8)["expert"]
    assert (wide.ranks, wide.ranks_per_domain) == (64, 8)


def test_tensor_ranks_push_context_ranks_apart() -> None:
    assert groups(Plan(tensor=8, context=4), 2, 8, 8)["context"].ranks_per_domain == 1
    assert groups(Plan(tensor=2, context=4), 2, 8, 8)["context"].ranks_per_domain == 4


MODEL = "training.model="


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("training.plan.expert=2",), "expected 1"),
        ((f"{MODEL}mixtral-8x7b", "training.plan.expert=3"), "divisor of the model's experts (8)"),
        ((f"{MODEL}mixtral-8x7b", "training.plan.expert=8"), "ranks that may share experts"),
        (
            (
                f"{MODEL}mixtral-8x7b",
                "training.plan.split_experts=false",
                "training.plan.sequence_parallel=false",
            ),
            "tensor ranks have the same tokens",
        ),
        (("training.plan.context=3",), "twice it to divide sequence"),
        (("training.plan.context=2", "training.plan.flash_attention=false"), "without flash_attention"),
        (("training.plan.context=2", f"{MODEL}bert-large"), "keeps its sequences whole"),
        (
            ("training.plan.context=64", "training.plan.context_exchange=all-to-all"),
            "divide the model's heads",
        ),
        (("training.plan.context=2", f"{MODEL}gemma-2-9b"), "does not know sliding windows"),
        ((f"{MODEL}resnet-50",), "is not cut"),
        ((f"{MODEL}resnet-50", "training.lora_rank=4"), "has no adapters"),
        ((f"{MODEL}resnet-50",), "reads no tokens"),
        ((f"{MODEL}resnet-50", "training.model.layers=5"), "cannot be changed"),
        ((f"{MODEL}conformer-l",), "a conformer is not cut"),
        ((f"{MODEL}t5-large",), "stages of two stacks"),
        ((f"{MODEL}bert-large", "training.masked_tokens=3000"), "at most sequence"),
    ],
)
def test_what_cannot_be_is_refused(small: str, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        loads(small, overrides=overrides)
    assert message in "\n".join(str(fault) for fault in caught.value.faults)


def test_a_ring_hides_behind_attention_when_sequences_are_long() -> None:
    """Attention grows with the square of the sequence, the ring's messages with the sequence."""
    text = (
        'name = "long"\n[[cluster.pools]]\nsystem = "dgx-h100"\nnodes = 1\n'
        '[training]\nmodel = "llama-3.1-8b"\nsequence = {s}\nglobal_batch = 1\n'
        '[training.plan]\ncontext = 8\ncontext_exchange = "{how}"\nrecompute = "full"\n'
    )
    waited = {
        (s, how): sim.run(loads(text.format(s=s, how=how))).parts_s["tensor communication"]
        for s in (8192, 131072)
        for how in ("ring", "all-to-all")
    }
    assert waited[131072, "ring"] == 0
    assert waited[131072, "all-to-all"] > waited[8192, "all-to-all"] > 0


@pytest.mark.parametrize("exchange", ["ring", "all-to-all"])
def test_context_ranks_shorten_a_step(small: str, exchange: str) -> None:
    one = (f"training.plan.context_exchange={exchange}", "training.plan.pipeline=1", "training.plan.tensor=1")
    one += ("training.plan.virtual_stages=1", "training.sequence=16384", "training.global_batch=16")
    one += ("profile=ideal",)
    alone = sim.run(loads(small, overrides=one))
    shared = sim.run(loads(small, overrides=(*one, "training.plan.context=4")))
    assert shared.data == alone.data / 4
    assert shared.step_s == pytest.approx(alone.step_s, rel=0.1)  # the same work on the same devices
    assert shared.memory[0].parts_bytes["activations"] < alone.memory[0].parts_bytes["activations"] / 3
