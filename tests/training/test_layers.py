"""Blocks against counts from the shape: FLOP, parameters, messages; and against what they must not do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cost.kernels.attention_shape import attention_flop, shape_of
from sim.spec.catalog import load_catalog
from sim.spec.flop_count import training_flop_per_token
from sim.spec.model import Model
from sim.spec.ops import Attention, Block, Gemm, Message, Op
from sim.spec.parallelism import Plan
from sim.spec.parameter_count import mtp_parameters, weights
from sim.spec.workload import Training
from sim.training.layers import network
from sim.training.weights import held_parameters

CATALOG = load_catalog()
DECODERS = (
    *("gpt3-6.7b", "llama-3.1-8b", "gemma-2-9b", "mixtral-8x7b", "qwen3-30b-a3b", "llama-4-maverick"),
    *("deepseek-v2-lite", "deepseek-v3", "gpt-oss-120b"),
)


def job(model: Model, sequence: int = 4096, lora_rank: int = 0, **plan: object) -> Training:
    return Training(
        model=model,
        global_batch=64,
        sequence=sequence,
        lora_rank=lora_rank,
        plan=Plan(**plan),  # type: ignore[arg-type]
    )


def flop(ops: tuple[Op, ...], backward_as_twice: bool = True) -> float:
    """FLOP of the matrix products; fused attention counts its backward as twice its forward, as models are counted."""
    total = 0.0
    for op in ops:
        if isinstance(op, Gemm):
            total += float(op.flop)  # type: ignore[arg-type]
        if isinstance(op, Attention):
            shape = shape_of(
                "fwd", op.batch, op.heads, op.kv_heads, op.head_dim, op.sequence, op.value_dim, op.queries,
                op.causal, op.window,
            )  # fmt: skip
            total += float(attention_flop("fwd", shape)) * (
                2 if op.phase == "bwd" and backward_as_twice else 1
            )
    return total


def work(blocks: tuple[Block, ...]) -> float:
    return sum(flop(block.forward + block.backward) for block in blocks)


@pytest.mark.parametrize("key", DECODERS)
def test_the_work_of_all_blocks_is_that_of_the_shape(key: str) -> None:
    model = CATALOG.model(key)
    training = job(model)
    expected = training.sequence * float(training_flop_per_token(model, training.sequence))
    assert work(network(model, training).blocks) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("key", DECODERS)
def test_the_blocks_hold_the_parameters_of_the_shape(key: str) -> None:
    model = CATALOG.model(key)
    held = held_parameters(network(model, job(model)).blocks)
    assert held.dense + held.experts == pytest.approx(weights(model).total + mtp_parameters(model), rel=1e-5)
    assert held.frozen == 0


@pytest.mark.parametrize(
    ("key", "plan", "ranks"),
    [
        ("llama-3.1-8b", {"tensor": 4}, 4),
        ("mixtral-8x7b", {"tensor": 2, "expert": 4}, 2),
        ("mixtral-8x7b", {"tensor": 2, "sequence_parallel": True, "expert": 8, "split_experts": False}, 2),
        ("deepseek-v3", {"expert": 64}, 1),
        ("llama-3.1-8b", {"context": 4}, 4),
        ("llama-3.1-8b", {"context": 8, "context_exchange": "all-to-all"}, 8),
        ("llama-3.1-8b", {"tensor": 2, "context": 2}, 4),
    ],
)
def test_ranks_share_the_work_of_a_sequence_evenly(key: str, plan: dict[str, object], ranks: int) -> None:
    """Expert parallel ranks bring their own tokens and serve those of others: their work is that of one rank alone."""
    model = CATALOG.model(key)
    alone = work(network(model, job(model)).layers)
    together = work(network(model, job(model, **plan)).layers)
    # MLA's down projections and the router are not cut: below 2 % of a layer
    assert ranks * together == pytest.approx(alone, rel=2e-2)


@pytest.mark.parametrize("expert", [1, 2, 8])
def test_experts_are_dealt_out_and_dense_weights_are_not(expert: int) -> None:
    model = CATALOG.model("mixtral-8x7b")
    alone = held_parameters(network(model, job(model)).blocks)
    held = held_parameters(network(model, job(model, expert=expert)).blocks)
    assert held.experts == pytest.approx(alone.experts / expert)
    assert held.dense == alone.dense


def test_an_moe_layer_sends_tokens_out_and_home_in_both_directions() -> None:
    model = CATALOG.model("mixtral-8x7b")
    layer = network(model, job(model, expert=8)).layers[0]
    for ops in (layer.forward, layer.backward):
        sent = [op for op in ops if isinstance(op, Message) and op.group == "expert"]
        assert [op.collective for op in sent] == ["alltoall", "alltoall"]
        assert {op.message_bytes for op in sent} == {2.0 * 4096 * 2 * 4096}


def test_layers_alternate_as_the_shape_says() -> None:
    gemma, llama4, deepseek = (
        CATALOG.model(key) for key in ("gemma-2-9b", "llama-4-maverick", "deepseek-v3")
    )
    windowed = [block.name for block in network(gemma, job(gemma, 8192)).layers]
    assert len(windowed) - windowed.count("layer") == gemma.layers - gemma.full_attention_layers
    for model in (llama4, deepseek):
        names = [block.name.startswith("layer, experts") for block in network(model, job(model)).layers]
        assert sum(names) == model.moe_layers
        assert not any(names[: model.first_dense_layers])


@settings(max_examples=40, deadline=None)
@given(
    key=st.sampled_from(["llama-3.1-8b", "mixtral-8x7b", "deepseek-v2-lite"]),
    recompute=st.sampled_from(["none", "selective", "full"]),
    tensor=st.sampled_from([1, 2, 4]),
    flash=st.booleans(),
)
def test_recomputation_keeps_less_and_never_more_than_backward_needs(
    key: str, recompute: str, tensor: int, flash: bool
) -> None:
    model = CATALOG.model(key)
    plan = {"tensor": tensor, "flash_attention": flash}
    plain = network(model, job(model, recompute="none", **plan)).layers[-1]
    block = network(model, job(model, recompute=recompute, **plan)).layers[-1]
    assert block.kept_bytes <= plain.kept_bytes
    assert block.kept_bytes <= block.activation_bytes
    assert bool(block.recompute) == (recompute != "none")


@pytest.mark.parametrize("key", ["llama-3.1-8b", "deepseek-v2-lite"])
def test_lora_freezes_all_but_small_adapters(key: str) -> None:
    model = CATALOG.model(key)
    full = network(model, job(model))
    lora = network(model, job(model, lora_rank=16))
    held, more = (
        held_parameters(lora.blocks),
        held_parameters(network(model, job(model, lora_rank=32)).blocks),
    )
    still = held.frozen + held.frozen_experts
    assert still == pytest.approx(weights(model).total + mtp_parameters(model), rel=1e-5)
    assert held.frozen_experts == held_parameters(full.blocks).experts
    assert 0 < held.trained < 0.02 * still
    assert more.trained == pytest.approx(2 * held.trained)
    # without weight gradients a step costs two thirds, and a little for the adapters
    assert 0.64 < work(lora.blocks) / work(full.blocks) < 0.72


def test_lora_adapters_of_llama_as_counted_by_hand() -> None:
    """Rank r on q, k, v as one matrix, output, gate and up as one, down: r x the sum of both sides."""
    model = CATALOG.model("llama-3.1-8b")
    h, f, r = 4096, 14336, 16
    attention = r * ((h + 6144) + (h + h))
    mlp = r * ((h + 2 * f) + (f + h))
    few = job(model, lora_rank=r)
    assert held_parameters(network(model, few).layers).trained == 32 * attention
    every = replace(few, lora_targets="all")
    assert held_parameters(network(model, every).layers).trained == 32 * (attention + mlp)


def test_ring_and_all_to_all_move_what_the_papers_say() -> None:
    """Ring: keys and values of the whole sequence pass each rank; all-to-all: q, k, v in and the output back."""
    model = CATALOG.model("llama-3.1-8b")
    ring = network(model, job(model, context=4)).layers[0]
    (forward,) = (op for op in ring.forward if isinstance(op, Message))
    (backward,) = (op for op in ring.backward if isinstance(op, Message))
    assert forward.message_bytes == 2 * 4096 * 2 * 8 * 128
    assert backward.message_bytes == 2 * forward.message_bytes
    assert (forward.beside, backward.beside) == ("attention", "attention gradient")
    ulysses = network(model, job(model, context=4, context_exchange="all-to-all")).layers[0]
    sizes = [op.message_bytes for op in ulysses.forward if isinstance(op, Message)]
    assert sizes == [2 * 1024 * (32 + 16) * 128, 2 * 1024 * 32 * 128]


def test_more_tensor_ranks_hold_and_do_less() -> None:
    model = CATALOG.model("llama-3.1-8b")
    every = [network(model, job(model, tensor=t)) for t in (1, 2, 4, 8)]
    for more, fewer in zip(every[1:], every[:-1], strict=True):
        assert held_parameters(more.blocks).dense < held_parameters(fewer.blocks).dense
        assert work(more.blocks) < work(fewer.blocks)
        assert more.layers[0].kept_bytes < fewer.layers[0].kept_bytes


def test_replacing_the_micro_batch_scales_the_work() -> None:
    model = CATALOG.model("mixtral-8x7b")
    one = job(model, expert=8)
    two = replace(one, plan=replace(one.plan, micro_batch=2))
    assert work(network(model, two).blocks) == pytest.approx(2 * work(network(model, one).blocks))
