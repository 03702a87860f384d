"""How full a device gets, part by part, and whether the plan fits.

Like packing a car before a trip: weights, gradients and optimizer state lie in the boot for the whole journey,
activations come and go with the micro-batches that are under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sim.cost.device import BYTES_PER_VALUE
from sim.cost.optimizer import GRADIENT_BYTES, RULES, WEIGHT_BYTES
from sim.spec.workload import Training
from sim.training.layers import activation_dtype
from sim.training.schedules import in_flight
from sim.spec.decoder_shape import DecoderShape
from sim.training.weights import stage_parameters

USABLE_FRAC = 0.94
"""Share of the datasheet capacity a job can fill: the rest is context, NCCL buffers and fragmentation (assumed;
SimuMax budgets the same)."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes on one device of one pipeline rank, by part."""

    rank: int
    parts_bytes: Mapping[str, float]
    capacity_bytes: float
    usable_bytes: float

    @property
    def total_bytes(self) -> float:
        """Peak use."""
        return sum(self.parts_bytes.values())

    @property
    def fits(self) -> bool:
        """Whether the peak stays within what is usable."""
        return self.total_bytes <= self.usable_bytes

    @property
    def largest_part(self) -> str:
        """The part that takes most: the one to cut first."""
        return max(self.parts_bytes, key=lambda part: self.parts_bytes[part])


def layer_activation_bytes(shape: DecoderShape, training: Training) -> float:
    """Bytes that one layer keeps for the backward pass of one micro-batch, on one tensor rank.

    Korthikanti et al. 2022 (arXiv 2205.05198) Table 2, written out by tensor so that grouped-query attention and
    gated MLPs count right. Not sharded by tensor parallelism: inputs of the two norms and of the two matrix pairs
    (8h) and dropout masks (2h); sharded: queries, keys, values, attention output, MLP intermediates; the score matrix
    and its dropout (5 heads s) unless attention is fused or selectively recomputed.
    """
    plan, tokens = training.plan, training.plan.micro_batch * training.sequence
    scale = BYTES_PER_VALUE[activation_dtype(training.precision)] / 2
    t, h = plan.tensor, float(shape.hidden)
    split = t if plan.sequence_parallel else 1
    if plan.recompute == "full":
        return scale * 2 * tokens * h / split
    query, value = shape.query_width, shape.key_width
    whole = 8 * h + (2 * h if training.dropout else 0.0)
    mlp = shape.ffn_hidden * (6.0 if shape.gated_ffn else 4.0)
    sharded = 4.0 * query + 4.0 * value + mlp
    scores = 0.0
    if plan.flash_attention:
        sharded += 4.0 * shape.heads  # log-sum-exp in fp32
    elif plan.recompute == "none":
        scores = 5.0 * shape.heads * training.sequence
    return scale * tokens * (whole / split + sharded / t + scores / t)


def memory_use(
    shape: DecoderShape, training: Training, micro_batches: int, data: int, capacity_bytes: float
) -> tuple[MemoryUse, ...]:
    """Peak memory of a device in each pipeline rank.

    Args:
        micro_batches: micro-batches of one copy in a step.
        data: data-parallel copies (shards the optimizer state under ZeRO 1).
        capacity_bytes: the device's memory.
    """
    plan = training.plan
    rule = RULES[training.optimizer]
    shard = data if plan.zero_stage >= 1 else 1
    tokens = plan.micro_batch * training.sequence
    size = BYTES_PER_VALUE[activation_dtype(training.precision)]
    layers = layers_by_rank(shape.layers, plan.pipeline, plan.virtual_stages)
    uses = []
    for rank in range(plan.pipeline):
        parameters = stage_parameters(shape, plan, sum(layers[rank]), rank)
        held = in_flight(plan.schedule, plan.pipeline, micro_batches, rank, plan.virtual_stages)
        activations = layer_activation_bytes(shape, training) * sum(layers[rank]) * held
        if plan.recompute == "full":  # the layer being recomputed unfolds its activations once
            activations += _unfolded(shape, training)
        parts = {
            "weights": WEIGHT_BYTES * parameters,
            "gradients": GRADIENT_BYTES * parameters,
            "optimizer state": rule.state_bytes * parameters / shard,
            "activations": activations,
        }
        if rank == plan.pipeline - 1:  # logits in 16 bit, and in fp32 for the loss
            parts["logits"] = (size + 4.0) * tokens * shape.vocab / plan.tensor
        uses.append(MemoryUse(rank, parts, capacity_bytes, USABLE_FRAC * capacity_bytes))
    return tuple(uses)


def layers_by_rank(layers: int, stages: int, chunks: int) -> list[list[int]]:
    """Layers of each chunk of each rank; what does not divide evenly goes to the earliest virtual stages."""
    total = stages * chunks
    share, extra = divmod(layers, total)
    return [[share + (1 if chunk * stages + rank < extra else 0) for chunk in range(chunks)] for rank in range(stages)]


def _unfolded(shape: DecoderShape, training: Training) -> float:
    return layer_activation_bytes(model, replace(training, plan=replace(training.plan, recompute="none")))
