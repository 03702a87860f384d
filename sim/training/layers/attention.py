"""The attention half of a layer: grouped-query, sliding-window, latent (MLA) and cross attention.

Like a conference with interpreters: everybody prepares questions and answers (projections), asks (the core), and
sums up (output projection); under context parallelism the seats are in several rooms and the answers are carried round.
"""

from __future__ import annotations

from sim.spec.model import Model
from sim.spec.ops import Attention, Gemm, MemoryBound, Message, Op
from sim.spec.workload import Training
from sim.training.layers.parts import (
    Linear,
    Part,
    activation_dtype,
    gradients,
    linear,
    norm,
    residual,
    split,
    tensor_sync,
    tokens,
    value_bytes,
)

CAUSAL_KINDS = ("decoder", "moe", "mla-moe")


def self_attention(model: Model, training: Training, *, window: int = 0, causal: bool | None = None) -> Part:
    """Attention of the tokens to themselves; causal in decoders unless said otherwise."""
    masked = model.kind in CAUSAL_KINDS if causal is None else causal
    if model.kv_lora_rank:
        return _latent(model, training)
    count, t, h = tokens(training), training.plan.tensor, model.hidden
    query, key_value = model.heads * model.head_dim, max(model.kv_heads, t) * model.head_dim
    qkv = linear(training, count, (query + 2 * key_value) // t, h, "qkv", cut="columns")
    out = linear(training, count, h, query // t, "attention out", cut="rows")
    core = _Core(model, training, masked, window)
    values = 4.0 * query + 4.0 * model.kv_heads * model.head_dim
    return _assemble(model, training, (qkv,), out, core, values)


def cross_attention(model: Model, training: Training, source: int) -> Part:
    """Attention of the second stack's tokens to ``source`` tokens of the first, whose keys and values it projects."""
    count, read = tokens(training), tokens(training, source)
    t, h = training.plan.tensor, model.hidden
    width = model.heads * model.head_dim
    query = linear(training, count, width // t, h, "cross query", cut="columns")
    pair = linear(
        training, read, 2 * model.kv_heads * model.head_dim // t, h, "cross key and value", cut="columns"
    )
    out = linear(training, count, h, width // t, "cross attention out", cut="rows")
    core = _Core(model, training, causal=False, window=0, keys=source)
    values = 4.0 * width + 4.0 * model.kv_heads * model.head_dim * source / training.sequence
    return _assemble(model, training, (query, pair), out, core, values)


def _latent(model: Model, training: Training) -> Part:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1), unfolded as in training.

    Query and key-value are compressed by small matrices that every tensor rank holds, normalised, and expanded to the
    heads of this rank; keys carry a rotated part shared by all heads.
    """
    count, t, h = tokens(training), training.plan.tensor, model.hidden
    c, q, r = model.kv_lora_rank, model.q_lora_rank, model.rope_dim
    heads, wide, dv = model.heads // t, model.head_dim + r, model.value_dim
    query = linear(training, count, heads * wide, q or h, "query up", cut="columns")
    first = (linear(training, count, q, h, "query down"),) if q else ()
    down = linear(training, count, c + r, h, "key-value down")
    up = linear(training, count, heads * (model.head_dim + dv), c, "key-value up", cut="columns")
    out = linear(training, count, h, heads * dv, "attention out", cut="rows")
    core = _Core(model, training, causal=True, window=0)
    values = model.heads * (4.0 * wide + 4.0 * dv)
    whole = 4.0 * (q + c + r)  # compressed vectors before and after their norm, on every tensor rank
    return _assemble(model, training, (*first, query, down, up), out, core, values, whole)


def _assemble(
    model: Model,
    training: Training,
    into: tuple[Linear, ...],
    out: Linear,
    core: _Core,
    values: float,
    whole: float = 0.0,
) -> Part:
    """Norm, projections, core, output projection, exchange, residual; and what they leave for backward.

    Kept per token, in values of 16 bit (Korthikanti et al. 2022, arXiv 2205.05198, Table 2, by tensor): inputs of norm
    and projections 4h, dropout mask h, ``values`` bytes of queries, keys, values and output over the tensor group; the
    score matrix and its dropout 5 heads s, or the fp32 log-sum-exp of fused attention.
    """
    count, plan = tokens(training), training.plan
    scale, t = value_bytes(training) / 2, plan.tensor
    masks = float(model.hidden) if training.dropout else 0.0
    sharded = values + (4.0 * model.heads if plan.flash_attention else 0.0)
    scores = 0.0 if plan.flash_attention else 5.0 * model.heads * core.keys
    kept = (4.0 * model.hidden + masks) / split(training) + whole + (sharded + scores) / t
    return Part(
        forward=(
            norm(model, training, "fwd", count),
            *(op for one in into for op in one.forward),
            *core.forward(),
            *out.forward,
            *tensor_sync(model, training, count, "attention"),
            residual(model, training, count, "residual"),
        ),
        backward=(
            *out.backward,
            *core.backward(),
            *(op for one in into for op in one.backward),
            *tensor_sync(model, training, count, "attention gradient"),
            norm(model, training, "bwd", count),
            residual(model, training, count, "residual gradient"),
        ),
        core=core.forward(),
        adapters=sum(one.adapters for one in (*into, out)),
        kept_bytes=scale * count * kept,
        core_bytes=scale * count * scores / t,
    )


class _Core:
    """softmax(QK^T)V: one fused kernel, or two batched products around passes over the score matrix."""

    def __init__(self, model: Model, training: Training, causal: bool, window: int, keys: int = 0) -> None:
        self.model, self.training, self.causal = model, training, causal
        self.keys = keys or training.sequence
        self.window = window if window < self.keys else 0
        plan = training.plan
        self.heads = model.heads // plan.tensor
        self.groups = max(model.kv_heads // plan.tensor, 1)
        self.width = model.head_dim + (model.rope_dim if model.kv_lora_rank else 0)

    def forward(self) -> tuple[Op, ...]:
        """Kernels and context messages of the forward pass."""
        if self.training.plan.flash_attention:
            return self._context("fwd", self._fused("fwd"))
        scores, context = self._products()
        return (scores, *self._passes(("softmax", "dropout")), context)

    def backward(self) -> tuple[Op, ...]:
        """Kernels and context messages of the backward pass."""
        if self.training.plan.flash_attention:
            return self._context("bwd", self._fused("bwd"))
        scores, context = self._products()
        return (*gradients(context), *self._passes(("softmax_bwd", "dropout")), *gradients(scores))

    def _fused(self, phase: str) -> Attention:
        plan, dv = self.training.plan, self.model.value_dim
        heads, groups, queries, keys, causal = (
            self.heads,
            self.groups,
            self.training.sequence,
            self.keys,
            self.causal,
        )
        batch, packed = plan.micro_batch, self.training.document_tokens
        if plan.context == 1 and keys == queries and 0 < packed < queries:
            batch, queries, keys = max(round(batch * queries / packed), 1), packed, packed
        if plan.context > 1 and plan.context_exchange == "all-to-all":
            heads, groups = heads // plan.context, max(groups // plan.context, 1)
        elif plan.context > 1:  # zig-zag order: each rank's queries see half of the keys on average
            queries //= plan.context
            keys, causal = (keys // 2 if causal else keys), False
        return Attention(
            phase, batch, heads, groups, self.width, keys, causal,
            queries=None if queries == keys else queries,
            value_dim=None if dv == self.width else dv,
            window=self.window,
            kernel=plan.attention_kernel,
            name="attention" if phase == "fwd" else "attention gradient",
        )  # fmt: skip

    def _context(self, phase: str, kernel: Attention) -> tuple[Op, ...]:
        """What the context group exchanges around the fused kernel.

        Ring (Liu et al. 2023, arXiv 2310.01889): keys and values pass all ranks, twice in backward with their
        gradients, beside the kernel. All-to-all (DeepSpeed-Ulysses, Jacobs et al. 2023, arXiv 2309.14509): queries,
        keys, values and output change from a cut by tokens to a cut by heads.
        """
        plan = self.training.plan
        if plan.context == 1:
            return (kernel,)
        own, size = tokens(self.training), value_bytes(self.training)
        pair = self.groups * (self.width + self.model.value_dim)
        if plan.context_exchange == "ring":
            moved = size * own * plan.context * pair * (2 if phase == "bwd" else 1)
            name = "context ring" if phase == "fwd" else "context ring gradient"
            return (Message("all_gather", moved, "context", name, beside=kernel.name), kernel)
        width = self.heads * self.width + pair
        into = Message("alltoall", size * own * width, "context", "context heads")
        back = Message(
            "alltoall", size * own * self.heads * self.model.value_dim, "context", "context tokens"
        )
        return (into, kernel, back) if phase == "fwd" else (back, kernel, into)

    def _products(self) -> tuple[Gemm, Gemm]:
        s, batch = self.training.sequence, self.training.plan.micro_batch * self.heads
        return (
            Gemm(s, self.keys, self.width, batch, "scores"),
            Gemm(s, self.model.value_dim, self.keys, batch, "context"),
        )

    def _passes(self, ops: tuple[str, ...]) -> tuple[Op, ...]:
        rows = self.training.plan.micro_batch * self.heads * self.training.sequence
        dtype = activation_dtype(self.training.precision)
        return tuple(MemoryBound(op, rows, self.keys, dtype, "softmax and dropout") for op in ops)
