"""The other half of a layer: a dense MLP, or a router and its experts.

An MoE layer is a sorting office: the router writes an address on each token, an all-to-all carries it to the rank that
holds its expert, and another brings the result home.
"""

from __future__ import annotations

from sim.spec.model import Model
from sim.spec.ops import Gemm, MemoryBound, Message, Op
from sim.spec.workload import Training
from sim.training.layers.parts import (
    Part,
    activation_dtype,
    linear,
    norm,
    residual,
    split,
    tensor_sync,
    tokens,
    value_bytes,
    weight_gradients,
)


def dense_mlp(model: Model, training: Training) -> Part:
    """Two matrices around an activation, three where gated.

    Kept per token: inputs of norm and first matrix 4h, dropout mask h, intermediates 4f (6f gated) over the tensor
    group (Korthikanti et al. 2022, arXiv 2205.05198, Table 2).
    """
    count, h, plan = tokens(training), model.hidden, training.plan
    forward, backward, adapters = _matrices(model, training, model.ffn_hidden // plan.tensor, "mlp")
    masks = float(h) if training.dropout else 0.0
    kept = (4.0 * h + masks) / split(training) + model.ffn_hidden * (
        6.0 if model.gated_ffn else 4.0
    ) / plan.tensor
    return Part(
        forward=(
            norm(model, training, "fwd", count),
            *forward,
            *tensor_sync(model, training, count, "mlp"),
            residual(model, training, count, "residual"),
        ),
        backward=(
            *backward,
            *tensor_sync(model, training, count, "mlp gradient"),
            norm(model, training, "bwd", count),
            residual(model, training, count, "residual gradient"),
        ),
        adapters=adapters,
        kept_bytes=value_bytes(training) / 2 * count * kept,
    )


def mixture(model: Model, training: Training) -> Part:
    """Router, dispatch, routed experts, combine, and the experts that every token visits.

    Kept per token, 16 bit: inputs of norm and layer 4h, router scores in fp32, permuted input and expert output 4 k h,
    intermediates 6 k f_e of routed and 6 f_s of shared experts over the tensor group (4 where not gated).
    """
    count, h, plan = tokens(training), model.hidden, training.plan
    router = linear(training, count // split(training), model.experts, h, "router", adapted=False)
    shared_forward, shared_backward, adapters = _matrices(
        model, training, model.shared_experts * model.moe_ffn_hidden // plan.tensor, "shared experts"
    )
    routed_forward, routed_backward = _routed(model, training)
    share = _routed_tokens(training) / count
    each = (6.0 if model.gated_ffn else 4.0) * model.moe_ffn_hidden
    kept = 4.0 * h / split(training) + 4.0 * model.experts
    kept += (
        share * model.topk * (4.0 * h + each / plan.expert_tensor) + model.shared_experts * each / plan.tensor
    )
    return Part(
        forward=(
            norm(model, training, "fwd", count),
            *router.forward,
            MemoryBound("softmax", count // split(training), model.experts, "fp32", "router"),
            *routed_forward,
            *shared_forward,
            residual(model, training, count, "residual"),
        ),
        backward=(
            *shared_backward,
            *routed_backward,
            MemoryBound("softmax_bwd", count // split(training), model.experts, "fp32", "router"),
            *router.backward,
            norm(model, training, "bwd", count),
            residual(model, training, count, "residual gradient"),
        ),
        adapters=adapters + router.adapters,
        kept_bytes=value_bytes(training) / 2 * count * kept,
    )


def _matrices(
    model: Model, training: Training, width: int, name: str
) -> tuple[tuple[Op, ...], tuple[Op, ...], float]:
    """The matrices of an MLP of ``width`` on this rank and the passes between them; nothing where it is 0."""
    if not width:
        return (), (), 0.0
    count, dtype = tokens(training), activation_dtype(training.precision)
    wide = width * (2 if model.gated_ffn else 1)
    adapted = training.lora_targets == "all"
    up = linear(training, count, wide, model.hidden, f"{name} up", adapted=adapted, cut="columns")
    down = linear(training, count, model.hidden, width, f"{name} down", adapted=adapted, cut="rows")
    kernel = "silu_and_mul" if model.gated_ffn else "gelu"
    return (
        (*up.forward, MemoryBound(kernel, count, width, dtype, "activation"), *down.forward),
        (
            *down.backward,
            MemoryBound("residual_add", count, wide, dtype, "activation gradient"),
            *up.backward,
        ),
        up.adapters + down.adapters,
    )


def _routed(model: Model, training: Training) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    """Dispatch, experts of this rank, combine; in backward gradients go the same ways.

    Each token goes to ``topk`` experts; a rank of the expert group sends topk x tokens x h values, all but 1/e of them
    to others (Lepikhin et al. 2020, arXiv 2006.16668). Routing is taken as balanced (training makes it so by loss or
    bias), so that a rank's experts are one grouped product: E/e products of k tokens e / E rows. Where experts are cut
    over the tensor group, rows are gathered and sums reduced there like a dense MLP's.
    """
    plan, count, h, dtype = training.plan, _routed_tokens(training), model.hidden, _dtype(training)
    own = model.experts // plan.expert
    pairs = count * model.topk
    rows = max(round(pairs / own), 1)
    width = model.moe_ffn_hidden // plan.expert_tensor
    wide = width * (2 if model.gated_ffn else 1)
    up = Gemm(rows, wide, h, own, "experts up")
    down = Gemm(rows, h, width, own, "experts down")
    products = 1 if training.lora_rank else 2  # frozen experts have no weight gradient
    permute = MemoryBound("copy", pairs, h, dtype, "permute")
    merge = MemoryBound("copy", pairs, h, dtype, "unpermute")
    act = MemoryBound("silu_and_mul" if model.gated_ffn else "gelu", pairs, width, dtype, "activation")
    forward: tuple[Op, ...] = (permute, *_exchange(model, training, "dispatch"), up, act, down)
    forward = (*forward, *_exchange(model, training, "combine"), merge)
    backward: tuple[Op, ...] = (
        merge,
        *_exchange(model, training, "combine gradient"),
        *weight_gradients(training, down)[:products],
        MemoryBound("residual_add", pairs, wide, dtype, "activation gradient"),
        *weight_gradients(training, up)[:products],
        *_exchange(model, training, "dispatch gradient"),
        permute,
    )
    return forward, backward


def _exchange(model: Model, training: Training, name: str) -> tuple[Op, ...]:
    """The all-to-all of one direction, and, towards the end of a pass, the sum over the ranks that share experts."""
    plan, h = training.plan, model.hidden
    ops: tuple[Op, ...] = ()
    if plan.expert_tensor > 1 and name in ("combine", "dispatch gradient"):
        rows = tokens(training) * (model.topk if plan.expert > 1 else 1)
        ops = tensor_sync(model, training, rows, f"expert {name}")
    if plan.expert > 1:
        share = split(training) if plan.split_experts else 1  # a tensor rank sends its own part of the tokens
        copies = _copies(model, training)
        sent = value_bytes(training) * _routed_tokens(training) / share * copies * h
        ops = (*ops, Message("alltoall", sent, "expert", f"expert {name}"))
    return ops


def _copies(model: Model, training: Training) -> float:
    """Copies of a token that travel: one an expert, or one a rank (or node) with experts of its choice.

    Node-limited routing: DeepSeek-V3 report (arXiv 2412.19437), 3.2.2. Balanced choices of k among e ranks meet
    e (1 - (1 - 1/e)^k) distinct ones.
    """
    plan = training.plan
    if not plan.dispatch_once:
        return min(model.topk, plan.expert_nodes or model.topk)
    places = min(plan.expert_nodes or plan.expert, plan.expert)
    return places * (1 - (1 - 1 / places) ** model.topk)


def _routed_tokens(training: Training) -> int:
    """Tokens that one rank brings to the experts: its sequence-parallel part where experts are whole."""
    whole = tokens(training)
    return whole if training.plan.split_experts else whole // training.plan.tensor


def _dtype(training: Training) -> str:
    return activation_dtype(training.precision)
