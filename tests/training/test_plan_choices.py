"""What frameworks do with the same model: padding, kernels, recomputation, expert messages, accumulation."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.kernels.attention_kernels import KERNELS, slowdown
from sim.cost.kernels.sustained import ANCHORS, sustained_frac
from sim.spec.catalog import load_catalog
from sim.spec.model import Model
from sim.spec.ops import Attention, Block, Gemm, MemoryBound, Message
from sim.spec.parallelism import ATTENTION_KERNELS, Plan
from sim.spec.training_flop import training_flop_per_sample
from sim.spec.workload import Training
from sim.training.layers import network

CATALOG = load_catalog()
LLAMA, MIXTRAL = CATALOG.model("llama-3.1-8b"), CATALOG.model("mixtral-8x7b")


def job(model: Model = LLAMA, sequence: int = 4096, **plan: object) -> Training:
    return Training(model=model, global_batch=64, sequence=sequence, plan=Plan(**plan))  # type: ignore[arg-type]


def layer(training: Training) -> Block:
    return network(training.model, training).layers[0]  # type: ignore[arg-type]


def flop(ops: tuple[object, ...]) -> float:
    return sum(float(op.flop) for op in ops if isinstance(op, Gemm))  # type: ignore[arg-type]


@given(share=st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_padding_left_out_is_a_shorter_sequence(share: float) -> None:
    model = CATALOG.model("bert-large")
    filled = replace(job(model, 512), fill_frac=share)
    short = job(model, round(512 * share))
    assert network(model, filled) == network(model, short)
    assert training_flop_per_sample(model, filled, "full", "none") == training_flop_per_sample(
        model, short, "full", "none"
    )


def test_packed_documents_only_shrink_attention() -> None:
    whole, packed = job(), replace(job(), document_tokens=512)
    fused = next(op for op in layer(packed).forward if isinstance(op, Attention))
    assert (fused.batch, fused.sequence) == (8, 512)
    rest = [
        [op for op in layer(one).forward + layer(one).backward if not isinstance(op, Attention)]
        for one in (whole, packed)
    ]
    assert rest[0] == rest[1]


def test_older_kernels_are_slower_where_there_is_a_newer_one() -> None:
    assert KERNELS == ATTENTION_KERNELS
    assert [slowdown(kernel, "ampere", "fwd") for kernel in KERNELS] == [1.0, 1.0, pytest.approx(1.4)]
    for generation, phase in product(("hopper", "blackwell"), ("fwd", "bwd")):
        newest, second, first = (slowdown(kernel, generation, phase) for kernel in KERNELS)
        assert newest == 1.0 < second < first
        assert first / second == pytest.approx(slowdown("flash-1", "ampere", phase))
    with pytest.raises(ValueError, match="newest, flash-2, flash-1"):
        slowdown("flash-3", "hopper", "fwd")


@given(watt=st.floats(50, 3000), more=st.floats(1, 3))
def test_a_higher_power_limit_never_slows_down(watt: float, more: float) -> None:
    for generation, anchor in ANCHORS.items():
        low = sustained_frac(generation, watt, anchor.flop_per_s)
        assert 0 < low <= sustained_frac(generation, watt * more, anchor.flop_per_s) <= 1
        assert low >= sustained_frac(generation, watt, anchor.flop_per_s * more)


def test_anchors_keep_what_was_measured_and_others_everything() -> None:
    for generation, anchor in ANCHORS.items():
        assert sustained_frac(generation, anchor.tdp_w, anchor.flop_per_s) == pytest.approx(anchor.frac)
        assert sustained_frac(generation, None, anchor.flop_per_s) == anchor.frac
    fracs = [anchor.frac for anchor in ANCHORS.values()]
    assert min(fracs) < sustained_frac("volta", 300.0, 125e12) < max(fracs)
    assert sustained_frac("volta", 300.0, 125e12) == pytest.approx(math.prod(fracs) ** (1 / 3), abs=0.01)


def test_recomputation_that_stops_early_leaves_out_the_last_product() -> None:
    whole, early = layer(job(recompute="full")), layer(job(recompute="full", recompute_stops_early=True))
    last = [op for op in whole.forward if isinstance(op, Gemm)][-1]
    assert flop(whole.recompute) - flop(early.recompute) == pytest.approx(float(last.flop))  # type: ignore[arg-type]
    assert early.kept_bytes == whole.kept_bytes


@pytest.mark.parametrize("model", [LLAMA, MIXTRAL])
def test_recomputation_by_operators_lies_between_none_and_full(model: Model) -> None:
    none, some, full = (layer(job(model, recompute=way)) for way in ("none", "operators", "full"))
    assert full.kept_bytes < some.kept_bytes < none.kept_bytes
    assert 0 < flop(some.recompute) < flop(full.recompute)
    assert not any(isinstance(op, Attention) for op in some.recompute)
    ways = [
        training_flop_per_sample(model, job(model), "causal", way) for way in ("none", "operators", "full")
    ]
    assert ways == sorted(ways)


def expert_bytes(**plan: object) -> float:
    return sum(
        float(op.message_bytes)  # type: ignore[arg-type]
        for op in layer(job(MIXTRAL, **plan)).forward
        if isinstance(op, Message) and op.group == "expert"
    )


@pytest.mark.parametrize("expert", [2, 4, 8])
def test_a_token_sent_once_a_rank_meets_the_expected_number_of_ranks(expert: int) -> None:
    """Two choices among e ranks fall on the same one with probability 1/e: 2 - 1/e distinct ones."""
    ratio = expert_bytes(expert=expert, dispatch_once=True) / expert_bytes(expert=expert)
    assert ratio == pytest.approx((2 - 1 / expert) / 2)


def test_a_token_sent_once_a_node_meets_no_more_than_the_nodes() -> None:
    assert expert_bytes(expert=8, dispatch_once=True, expert_nodes=1) == pytest.approx(
        expert_bytes(expert=8) / 2
    )


def test_unfused_accumulation_passes_once_over_the_weights() -> None:
    fused, apart = layer(job()), layer(job(fused_accumulation=False))
    added = apart.backward[-1]
    products = [op for op in apart.backward if isinstance(op, Gemm)]
    adding = [op for op in fused.backward if isinstance(op, Gemm)]
    assert [replace(op, c_bytes=None) for op in adding] == products
    weights = sum(float(op.m) * float(op.n) for op in adding if op.c_bytes == 8.0)  # type: ignore[arg-type]
    assert weights == pytest.approx(
        fused.parameters, rel=1e-3
    )  # each is read and written in fp32; norms are not
    assert isinstance(added, MemoryBound)
    assert float(added.rows) * float(added.cols) == pytest.approx(fused.parameters, rel=1e-4)  # type: ignore[arg-type]
