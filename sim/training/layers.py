"""What a transformer does, written down op by op for one device of a plan.

Each function is the score of one kind of block: which matrices are multiplied, what passes over memory, what is sent
between the tensor ranks. Shapes follow Megatron-LM (Narayanan et al. 2021, arXiv 2104.04473, section 2.3; sequence
parallel: Korthikanti et al. 2022, arXiv 2205.05198).
"""

from __future__ import annotations

from sim.spec.device import BYTES_PER_VALUE
from sim.spec.model import Model
from sim.spec.ops import Attention, Block, Gemm, MemoryBound, Message, Op
from sim.spec.workload import Training


def activation_dtype(precision: str) -> str:
    """Number format of activations between kernels: 16 bit under mixed precision, else as computed."""
    return {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16"}.get(precision, "bf16")


def transformer_layer(model: Model, training: Training) -> Block:
    """One dense decoder layer on one tensor rank, for one micro-batch."""
    attention_forward, attention_backward = _attention(model, training)
    mlp_forward, mlp_backward = _mlp(model, training)
    forward = attention_forward + mlp_forward
    again: tuple[Op, ...] = ()
    if training.plan.recompute == "full":
        again = forward
    elif training.plan.recompute == "selective":
        again = _core(model, training, "fwd")
    return Block("layer", forward, attention_backward + mlp_backward, again)


def embedding(model: Model, training: Training) -> Block:
    """Token look-up on the first stage: a gather of rows, and its scatter-add in backward."""
    rows, dtype = _tokens(training), activation_dtype(training.precision)
    width = model.hidden
    return Block(
        "embedding",
        (MemoryBound("copy", rows, width, dtype, "embedding"), *_tensor_sync(model, training, "embedding")),
        (MemoryBound("residual_add", rows, width, dtype, "embedding gradient"),),
    )


def head(model: Model, training: Training) -> Block:
    """Final norm, logits over the vocabulary shard and cross-entropy in fp32 on the last stage."""
    tokens, plan = _tokens(training), training.plan
    shard = -(-model.vocab // plan.tensor)
    logits = Gemm(tokens, shard, model.hidden, name="logits")
    loss = MemoryBound("softmax", tokens, shard, "fp32", "cross-entropy")
    return Block(
        "head",
        (_norm(model, training, "fwd"), logits, loss),
        (
            MemoryBound("copy", tokens, shard, "fp32", "cross-entropy gradient"),
            *_gradients(logits),
            _norm(model, training, "bwd"),
            *_tensor_sync(model, training, "logits gradient"),
        ),
    )


def boundary_bytes(model: Model, training: Training) -> float:
    """Activations that one pipeline stage hands to the next for a micro-batch, bytes a tensor rank.

    2sbh, and a t-th of it where the tensor group scatters it or runs sequence parallel (arXiv 2104.04473, 4.1).
    """
    size = BYTES_PER_VALUE[activation_dtype(training.precision)]
    return size * _tokens(training) * model.hidden / training.plan.tensor


def _tokens(training: Training) -> int:
    return training.plan.micro_batch * training.sequence


def _norm_rows(training: Training) -> int:
    plan = training.plan
    return _tokens(training) // plan.tensor if plan.sequence_parallel else _tokens(training)


def _norm(model: Model, training: Training, phase: str) -> MemoryBound:
    kind = "rms_norm" if model.norm == "rms" else "layer_norm"
    rows, dtype = _norm_rows(training), activation_dtype(training.precision)
    return MemoryBound(f"{kind}_{phase}", rows, model.hidden, dtype, "norm")


def _gradients(gemm: Gemm) -> tuple[Gemm, Gemm]:
    """Input gradient dA = dC B^T and weight gradient dB = A^T dC."""
    return (
        Gemm(gemm.m, gemm.k, gemm.n, gemm.batch, f"{gemm.name} dgrad"),
        Gemm(gemm.k, gemm.n, gemm.m, gemm.batch, f"{gemm.name} wgrad"),
    )


def _tensor_sync(model: Model, training: Training, name: str) -> tuple[Op, ...]:
    """What the tensor group exchanges at one edge of a sharded pair of matrices.

    One all-reduce of the activations; under sequence parallel a reduce-scatter and an all-gather of the same volume.
    """
    plan = training.plan
    if plan.tensor == 1:
        return ()
    size = BYTES_PER_VALUE[activation_dtype(training.precision)] * _tokens(training) * model.hidden
    if plan.sequence_parallel:
        return (
            Message("reduce_scatter", size, "tensor", f"{name} reduce-scatter"),
            Message("all_gather", size, "tensor", f"{name} all-gather"),
        )
    return (Message("all_reduce", size, "tensor", f"{name} all-reduce"),)


def _attention(model: Model, training: Training) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    tokens, t, h = _tokens(training), training.plan.tensor, model.hidden
    dtype, rows = activation_dtype(training.precision), _norm_rows(training)
    query, value = model.heads * model.head_dim, max(model.kv_heads, t) * model.head_dim
    qkv = Gemm(tokens, (query + 2 * value) // t, h, name="qkv")
    out = Gemm(tokens, h, query // t, name="attention out")
    forward = (
        _norm(model, training, "fwd"),
        qkv,
        *_core(model, training, "fwd"),
        out,
        *_tensor_sync(model, training, "attention"),
        MemoryBound("residual_add", rows, h, dtype, "residual"),
    )
    backward = (
        *_gradients(out),
        *_core(model, training, "bwd"),
        *_gradients(qkv),
        *_tensor_sync(model, training, "attention gradient"),
        _norm(model, training, "bwd"),
        MemoryBound("residual_add", rows, h, dtype, "residual gradient"),
    )
    return forward, backward


def _core(model: Model, training: Training, phase: str) -> tuple[Op, ...]:
    """softmax(QK^T)V: one fused kernel, or two batched products around passes over the score matrix."""
    plan, s = training.plan, training.sequence
    heads = model.heads // plan.tensor
    if plan.flash_attention:
        groups = max(model.kv_heads // plan.tensor, 1)
        return (Attention(phase, plan.micro_batch, heads, groups, model.head_dim, s),)
    batch, dtype = plan.micro_batch * heads, activation_dtype(training.precision)
    scores = Gemm(s, s, model.head_dim, batch, "scores")
    context = Gemm(s, model.head_dim, s, batch, "context")
    passes = ("softmax", "dropout") if phase == "fwd" else ("softmax_bwd", "dropout")
    memory = tuple(MemoryBound(op, batch * s, s, dtype, "softmax and dropout") for op in passes)
    if phase == "fwd":
        return (scores, *memory, context)
    return (*_gradients(context), *memory, *_gradients(scores))


def _mlp(model: Model, training: Training) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    tokens, t, h = _tokens(training), training.plan.tensor, model.hidden
    dtype, rows = activation_dtype(training.precision), _norm_rows(training)
    width = model.ffn_hidden // t
    up = Gemm(tokens, width * (2 if model.gated_ffn else 1), h, name="mlp up")
    down = Gemm(tokens, h, width, name="mlp down")
    activation = MemoryBound(
        "silu_and_mul" if model.gated_ffn else "gelu", tokens, width, dtype, "activation"
    )
    forward = (
        _norm(model, training, "fwd"),
        up,
        activation,
        down,
        *_tensor_sync(model, training, "mlp"),
        MemoryBound("residual_add", rows, h, dtype, "residual"),
    )
    backward = (
        *_gradients(down),
        MemoryBound(
            "residual_add", tokens, width * (2 if model.gated_ffn else 1), dtype, "activation gradient"
        ),
        *_gradients(up),
        *_tensor_sync(model, training, "mlp gradient"),
        _norm(model, training, "bwd"),
        MemoryBound("residual_add", rows, h, dtype, "residual gradient"),
    )
    return forward, backward
