"""The other half of a layer: a dense MLP, or a router and its experts.

An MoE layer is a sorting office: the router writes an address on each token, an all-to-all carries it to the rank that
holds its expert, and another brings the result home.
"""

from __future__ import annotations

from sim.spec.model import Model
from sim.spec.ops import Experts, MemoryBound, Message, Op
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
    each = (6.0 if model.gated_ffn else 4.0) * model.moe_ffn_hidden
    kept = (4.0 * h + 4.0 * model.topk * h) / split(training) + 4.0 * model.experts
    kept += (model.topk + model.shared_experts) * each / plan.tensor
    return Part(
        forward=(
            norm(model, training, "fwd", count),
            *router.forward,
            MemoryBound("softmax", count // split(training), model.experts, "fp32", "router"),
            *_routed(model, training, "fwd"),
            *shared_forward,
            residual(model, training, count, "residual"),
        ),
        backward=(
            *shared_backward,
            *_routed(model, training, "bwd"),
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
    up = linear(training, count, wide, model.hidden, f"{name} up")
    down = linear(training, count, model.hidden, width, f"{name} down")
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


def _routed(model: Model, training: Training, phase: str) -> tuple[Op, ...]:
    """Dispatch, experts of this rank, combine. Backward sends gradients the same ways.

    Each token goes to ``topk`` experts; a rank of the expert group sends topk x tokens x h values and keeps 1/e of
    them (Lepikhin et al. 2020, arXiv 2006.16668). Where experts are cut over the tensor group too, their rows are
    gathered and reduced there like a dense MLP's.
    """
    plan, count, h = training.plan, tokens(training), model.hidden
    rows = count * (model.topk if plan.expert > 1 else 1)
    word = "" if phase == "fwd" else " gradient"
    experts = Experts(
        phase,
        count * plan.expert,
        h,
        model.moe_ffn_hidden,
        model.topk,
        model.experts,
        plan.expert,
        plan.tensor,
        3 if model.gated_ffn else 2,
        frozen=bool(training.lora_rank),
        name=f"experts{word}",
    )
    ops: tuple[Op, ...] = (experts, *tensor_sync(model, training, rows, f"experts{word}"))
    if plan.expert == 1:
        return ops
    sent = value_bytes(training) * (count / split(training)) * model.topk * h
    dispatch = Message("alltoall", sent, "expert", f"expert dispatch{word}")
    combine = Message("alltoall", sent, "expert", f"expert combine{word}")
    return (dispatch, *ops, combine)
