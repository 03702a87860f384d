"""Decoder-only language models: dense, mixture of experts, sliding windows, latent attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from sim.spec.model import Model
from sim.spec.ops import Block, MemoryBound, Op
from sim.spec.parameter_count import layer_weights, weights
from sim.spec.workload import Training
from sim.training.layers.attention import self_attention
from sim.training.layers.mlp import dense_mlp, mixture
from sim.training.layers.parts import (
    activation_dtype,
    block,
    linear,
    norm,
    split,
    sums_up,
    tensor_sync,
    tokens,
    value_bytes,
)


def decoder_layers(model: Model, training: Training) -> tuple[Block, ...]:
    """All layers of the (first) stack in order, equal ones as the same object."""
    order = _kinds_of(model)
    built = {
        (moe, window): transformer_layer(model, training, moe=moe, window=window)
        for moe, window in dict.fromkeys(order)
    }
    return tuple([built[kind] for kind in order])


@lru_cache(maxsize=16)
def _kinds_of(model: Model) -> tuple[tuple[bool, int], ...]:
    """Whether each layer has experts, and its window: asked for in every plan of a search."""
    return tuple((is_mixture(model, number), window_of(model, number)) for number in range(model.layers))


def is_mixture(model: Model, number: int) -> bool:
    """Whether layer ``number`` has experts: after the leading dense layers, the last of every ``moe_layer_step``."""
    after = number - model.first_dense_layers
    return bool(model.experts) and after >= 0 and (after + 1) % model.moe_layer_step == 0


def window_of(model: Model, number: int) -> int:
    """Sliding window of layer ``number``; 0 on the last of every ``global_layer_step`` layers, which sees all keys."""
    step = model.global_layer_step
    return 0 if step and (number + 1) % step == 0 else model.window


def transformer_layer(model: Model, training: Training, *, moe: bool = False, window: int = 0) -> Block:
    """One layer on one tensor rank, for one micro-batch."""
    own, plan = layer_weights(model, mixture=moe), training.plan
    every_rank = own.norms + own.router + _compressions(model)
    experts = own.experts / plan.expert_tensor / plan.expert
    parts = (
        self_attention(model, training, window=window),
        mixture(model, training) if moe else dense_mlp(model, training),
    )
    name = ("layer, experts" if moe else "layer") + (f", window {window}" if window else "")
    return block(
        name,
        training,
        parts,
        parameters=(own.total - every_rank - own.experts) / plan.tensor + every_rank,
        expert_parameters=experts,
        input_bytes=stream_bytes(model, training) / split(training),
    )


def stream_bytes(model: Model, training: Training) -> float:
    """Bytes of the residual stream of one micro-batch on one rank."""
    return value_bytes(training) * tokens(training) * float(model.hidden)


def _compressions(model: Model) -> int:
    """Weights of MLA that every tensor rank holds: both down projections."""
    if not model.kv_lora_rank:
        return 0
    return model.hidden * (model.q_lora_rank + model.kv_lora_rank + model.rope_dim)


def joined(name: str, blocks: Sequence[Block]) -> Block:
    """Several blocks that a rank always holds together, as one."""
    return Block(
        name,
        tuple(op for block in blocks for op in block.forward),
        tuple(op for block in reversed(blocks) for op in block.backward),
        tuple(op for block in blocks for op in block.recompute),
        sum(block.parameters for block in blocks),
        sum(block.expert_parameters for block in blocks),
        sum(block.frozen_parameters for block in blocks),
        sum(block.table_bytes for block in blocks),
        sum(block.activation_bytes for block in blocks),
        sum(block.kept_bytes for block in blocks),
        sum(block.frozen_expert_parameters for block in blocks),
    )


def decoder_end(model: Model, training: Training) -> Block:
    """The head, and the multi-token-prediction modules before it (DeepSeek-V3, arXiv 2412.19437, section 2.2).

    A module joins the trunk's output and the next token's embedding (2h -> h), passes a layer of its own and predicts
    through the same head.
    """
    last = head(model, training)
    if not model.mtp_layers:
        return last
    count, h = tokens(training), model.hidden
    join = linear(training, count // split(training), h, 2 * h, "next-token join", adapted=False)
    own = transformer_layer(model, training, moe=bool(model.experts))
    held = float(2 * h * h + 3 * h * (2 if model.norm == "ln" else 1))
    again = replace(head(model, training), parameters=0.0, frozen_parameters=0.0)
    frozen = bool(training.lora_rank)
    first = Block(
        "next-token join",
        (norm(model, training, "fwd", count), norm(model, training, "fwd", count), *join.forward),
        (*join.backward, norm(model, training, "bwd", count), norm(model, training, "bwd", count)),
        parameters=0.0 if frozen else held,
        frozen_parameters=held if frozen else 0.0,
        kept_bytes=4.0 * stream_bytes(model, training) / split(training),
    )
    return joined("head", [*[first, own, again] * model.mtp_layers, last])


def embedding(model: Model, training: Training) -> Block:
    """Token look-up on the first stage: a gather of rows, and its scatter-add in backward."""
    rows, dtype, every = tokens(training), activation_dtype(training.precision), weights(model)
    held = every.embedding / training.plan.tensor + every.positions
    frozen = bool(training.lora_rank)
    scatter = MemoryBound("residual_add", rows, model.hidden, dtype, "embedding gradient")
    return Block(
        "embedding",
        (
            MemoryBound("copy", rows, model.hidden, dtype, "embedding"),
            *tensor_sync(model, training, rows, "embedding"),
        ),
        () if frozen else (scatter, *_summed(model, training)),
        parameters=0.0 if frozen else held,
        frozen_parameters=held if frozen else 0.0,
    )


def _summed(model: Model, training: Training) -> tuple[Op, ...]:
    """The pass that adds a micro-batch's gradient of the whole table, dense in PyTorch, to the main gradients.

    No product does it. Zeroed, read and added in fp32 that moves 12 bytes a value. Under ZeRO 3 the gradient is sent at
    once.
    """
    if not sums_up(training):
        return ()
    plan = training.plan
    dtype = activation_dtype(training.precision) if plan.half_gradients else "fp32"
    shard = -(-model.vocab // plan.tensor)
    return (MemoryBound("residual_add", shard, model.hidden, dtype, "embedding gradient accumulation"),)


def head(model: Model, training: Training, *, rows: int | None = None, vocab: int = 0) -> Block:
    """Final norm, logits over the vocabulary shard and cross-entropy in fp32 on the last stage.

    Tied weights are held by the first and the last rank when these differ (Megatron-LM keeps a copy). The logits stay
    in 16 bit, and in fp32 for the loss.

    Args:
        rows: positions that are scored; all tokens where left out.
        vocab: classes to tell apart; the model's words where left out.
    """
    plan, every = training.plan, weights(model)
    count = tokens(training) if rows is None else rows
    words = vocab or model.vocab
    shard = -(-words // plan.tensor)
    product = linear(training, count, shard, model.hidden, "logits", adapted=False)
    loss = MemoryBound("softmax", count, shard, "fp32", "cross-entropy")
    copy = every.embedding if every.head == 0 and plan.pipeline > 1 else 0
    held = every.final_norms + (every.head + copy) / plan.tensor
    frozen = bool(training.lora_rank)
    return Block(
        "head",
        (norm(model, training, "fwd", count), *product.forward, loss),
        (
            MemoryBound("copy", count, shard, "fp32", "cross-entropy gradient"),
            *product.backward,
            norm(model, training, "bwd", count),
            *tensor_sync(model, training, count, "logits gradient"),
        ),
        parameters=0.0 if frozen else held,
        frozen_parameters=held if frozen else 0.0,
        kept_bytes=(value_bytes(training) + 4.0) * count * words / plan.tensor,
    )
