"""Encoders, encoder-decoders, vision and diffusion transformers: blocks against counts from the shape."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.cost.kernels.attention_shape import attention_flop, shape_of
from sim.spec.catalog import load_catalog
from sim.spec.flop_count import forward_flop_per_sample
from sim.spec.ops import Attention, Conv, Gemm
from sim.spec.parallelism import Plan
from sim.spec.parameter_count import weights
from sim.spec.workload import Training
from sim.training.layers import network
from sim.training.layers.encoder import vit_ends
from sim.training.layers.two_stacks import mel_bands
from sim.training.weights import held_parameters

CATALOG = load_catalog()
ONE_STACK = ("bert-base", "bert-large", "roberta-large", "vit-b-16", "vit-h-14", "dit-s-2", "dit-xl-2")
TWO_STACKS = ("t5-base", "t5-11b", "flan-t5-xl", "whisper-tiny", "whisper-large-v3")


def job(key: str, **changes: object) -> Training:
    model = CATALOG.model(key)
    sequence = 512 if model.kind in ("encoder", "encoder-decoder") else 1
    fixed = {"model": model, "global_batch": 8, "sequence": sequence, "target_sequence": 0}
    return Training(**{**fixed, **changes})  # type: ignore[arg-type]


def layer_flop(training: Training) -> float:
    """FLOP of the layers for one sample, fused attention's backward as twice its forward."""
    total = 0.0
    for block in network(training.model, training).layers:  # type: ignore[arg-type]
        for op in block.forward + block.backward:
            if isinstance(op, Gemm):
                total += float(op.flop)  # type: ignore[arg-type]
            elif isinstance(op, Attention):
                shape = shape_of(
                    "fwd", op.batch, op.heads, op.kv_heads, op.head_dim, op.sequence, op.value_dim,
                    op.queries, op.causal and op.queries is None, op.window,
                )  # fmt: skip
                total += float(attention_flop("fwd", shape)) * (2 if op.phase == "bwd" else 1)
    return total


@pytest.mark.parametrize("key", [*ONE_STACK, *TWO_STACKS])
def test_the_work_of_the_layers_is_that_of_the_shape(key: str) -> None:
    training = job(key)
    bare = replace(training.model, vocab=0)  # type: ignore[type-var]
    expected = 3.0 * forward_flop_per_sample(bare, training.source_tokens, training.target_tokens)
    assert layer_flop(training) == pytest.approx(float(expected), rel=3e-3)


@pytest.mark.parametrize("key", [*ONE_STACK, *TWO_STACKS])
def test_the_blocks_hold_the_parameters_of_the_shape(key: str) -> None:
    training = job(key)
    model = CATALOG.model(key)
    head = model.hidden * (model.hidden + 3) + model.vocab if model.kind == "encoder" else 0
    held = held_parameters(network(model, training).blocks)
    assert held.dense == pytest.approx(weights(model).total + head, rel=1e-9)


@pytest.mark.parametrize("key", [*ONE_STACK, *TWO_STACKS])
def test_lora_freezes_every_kind(key: str) -> None:
    held = held_parameters(network(CATALOG.model(key), job(key, lora_rank=4)).blocks)
    assert held.frozen == pytest.approx(weights(CATALOG.model(key)).total, rel=1e-9)
    assert 0 < held.trained < 0.1 * held.frozen


def test_bert_scores_only_the_masked_positions() -> None:
    few, many = (
        network(CATALOG.model("bert-large"), job("bert-large", masked_tokens=n)).last for n in (20, 80)
    )
    logits = {op.name: op.m for op in few.forward if isinstance(op, Gemm)}
    assert logits == {"masked-LM dense": 20, "logits": 20}
    assert many.kept_bytes == 4 * few.kept_bytes
    assert job("bert-large").scored_tokens == 77


def test_nothing_an_encoder_does_is_causal() -> None:
    for key in ("bert-base", "vit-b-16", "dit-s-2"):
        (attention,) = (
            op for op in network(CATALOG.model(key), job(key)).layers[0].forward if isinstance(op, Attention)
        )
        assert not attention.causal


def test_the_second_stack_looks_back_at_the_first() -> None:
    training = job("whisper-large-v3")
    decoder = network(CATALOG.model("whisper-large-v3"), training).layers[-1]
    own, cross = (op for op in decoder.forward if isinstance(op, Attention))
    assert (own.sequence, own.queries, own.causal) == (448, None, True)
    assert (cross.sequence, cross.queries, cross.causal) == (1500, 448, False)


def test_whisper_hears_through_two_convolutions() -> None:
    training = job("whisper-large-v3")
    convolutions = [
        (op.in_channels, op.out_channels, op.stride)
        for op in network(CATALOG.model("whisper-large-v3"), training).first.forward
        if isinstance(op, Conv)
    ]
    assert convolutions == [(128, 1280, (1, 1)), (1280, 1280, (2, 1))]
    assert mel_bands(CATALOG.model("whisper-tiny")) == 80


def test_patches_and_classes_of_vision_transformers() -> None:
    assert vit_ends(CATALOG.model("vit-b-16")) == (16 * 16 * 3, 1000)
    assert vit_ends(CATALOG.model("vit-h-14")) == (14 * 14 * 3, 1000)
    assert vit_ends(CATALOG.model("vit-22b")) == (14 * 14 * 3, 0)


@pytest.mark.parametrize("key", ["bert-large", "t5-11b", "whisper-large-v3", "vit-h-14"])
def test_tensor_ranks_share_the_layers(key: str) -> None:
    whole, halved = (layer_flop(job(key, plan=Plan(tensor=t))) for t in (1, 2))
    assert 2 * halved == pytest.approx(whole, rel=1e-9)
