"""How full a device gets, part by part, and whether the plan fits.

Like packing a car before a trip: weights, gradients and optimizer state lie in the boot for the whole journey,
activations come and go with the micro-batches that are under way.
"""

from __future__ import annotations

from dataclasses import replace

from sim.results.step import MemoryUse
from sim.spec.device import BYTES_PER_VALUE
from sim.spec.model import Model
from sim.spec.workload import Training
from sim.training.data_parallel import state_bytes
from sim.training.layers import activation_dtype
from sim.training.schedules import in_flight
from sim.training.weights import stage_parameters

USABLE_FRAC = 0.94
"""Share of the datasheet capacity a job can fill: the rest is context, NCCL buffers and fragmentation (assumed;
SimuMax budgets the same)."""


def layer_activation_bytes(model: Model, training: Training) -> float:
    """Bytes that one layer keeps for the backward pass of one micro-batch, on one tensor rank.

    Korthikanti et al. 2022 (arXiv 2205.05198) Table 2, written out by tensor so that grouped-query attention and
    gated MLPs count right. Not sharded by tensor parallelism: inputs of the two norms and of the two matrix pairs
    (8h) and dropout masks (2h); sharded: queries, keys, values, attention output, MLP intermediates; the score matrix
    and its dropout (5 heads s) unless attention is fused or selectively recomputed.
    """
    plan, tokens = training.plan, training.plan.micro_batch * training.sequence
    scale = BYTES_PER_VALUE[activation_dtype(training.precision)] / 2
    t, h = plan.tensor, float(model.hidden)
    split = t if plan.sequence_parallel else 1
    if plan.recompute == "full":
        return scale * 2 * tokens * h / split
    query, value = model.heads * model.head_dim, model.kv_heads * model.head_dim
    whole = 8 * h + (2 * h if training.dropout else 0.0)
    mlp = model.ffn_hidden * (6.0 if model.gated_ffn else 4.0)
    sharded = 4.0 * query + 4.0 * value + mlp
    scores = 0.0
    if plan.flash_attention:
        sharded += 4.0 * model.heads  # log-sum-exp in fp32
    elif plan.recompute == "none":
        scores = 5.0 * model.heads * training.sequence
    return scale * tokens * (whole / split + sharded / t + scores / t)


def memory_use(
    model: Model, training: Training, micro_batches: int, data: int, capacity_bytes: float
) -> tuple[MemoryUse, ...]:
    """Peak memory of a device in each pipeline rank.

    Args:
        micro_batches: micro-batches of one copy in a step.
        data: data-parallel copies (ZeRO shares out state over them).
        capacity_bytes: the device's memory.
    """
    plan = training.plan
    tokens = plan.micro_batch * training.sequence
    size = BYTES_PER_VALUE[activation_dtype(training.precision)]
    layers = layers_by_rank(model.layers, plan.pipeline, plan.virtual_stages)
    uses = []
    for rank in range(plan.pipeline):
        parameters = stage_parameters(model, plan, sum(layers[rank]), rank)
        mirror = plan.pipeline - 1 - rank if plan.schedule == "dualpipe" else rank
        if plan.schedule == "dualpipe":  # also holds the stage that mirrors its own
            parameters += stage_parameters(model, plan, sum(layers[mirror]), mirror)
        held = in_flight(plan.schedule, plan.pipeline, micro_batches, rank, plan.virtual_stages)
        activations = layer_activation_bytes(model, training) * sum(layers[rank]) * held
        if plan.recompute == "full":  # the layer being recomputed unfolds its activations once
            activations += _unfolded(model, training)
        parts = {
            **state_bytes(parameters, sum(layers[rank]), training, data),
            "activations": activations,
        }
        if plan.pipeline - 1 in (rank, mirror):  # logits in 16 bit, and in fp32 for the loss
            parts["logits"] = (size + 4.0) * tokens * model.vocab / plan.tensor
        uses.append(MemoryUse(rank, parts, capacity_bytes, USABLE_FRAC * capacity_bytes))
    return tuple(uses)


def layers_by_rank(layers: int, stages: int, chunks: int) -> list[list[int]]:
    """Layers of each chunk of each rank; what does not divide evenly goes to the earliest virtual stages."""
    total = stages * chunks
    share, extra = divmod(layers, total)
    return [
        [share + (1 if chunk * stages + rank < extra else 0) for chunk in range(chunks)]
        for rank in range(stages)
    ]


def _unfolded(model: Model, training: Training) -> float:
    return layer_activation_bytes(model, replace(training, plan=replace(training.plan, recompute="none")))
