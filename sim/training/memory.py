"""How full a device gets, part by part, and whether the plan fits.

Like packing a car before a trip: weights, gradients and optimizer state lie in the boot for the whole journey,
activations come and go with the micro-batches that are under way.
"""

from __future__ import annotations

from sim.cost.optimizer import GRADIENT_BYTES, RULES, WEIGHT_BYTES
from sim.results.step import MemoryUse
from sim.spec.workload import Training
from sim.training.layers import Network
from sim.training.schedules import in_flight
from sim.training.weights import held_parameters

USABLE_FRAC = 0.94
"""Share of the datasheet capacity a job can fill: the rest is context, NCCL buffers and fragmentation (assumed;
SimuMax budgets the same)."""


def memory_use(
    network: Network, training: Training, micro_batches: int, data: int, capacity_bytes: float
) -> tuple[MemoryUse, ...]:
    """Peak memory of a device in each pipeline rank.

    Args:
        network: blocks of the model on one device.
        micro_batches: micro-batches of one copy in a step.
        data: ranks that hold the same dense weights (they share the optimizer state under ZeRO 1).
        capacity_bytes: the device's memory.
    """
    plan = training.plan
    state = RULES[training.optimizer].state_bytes
    shard = data if plan.zero_stage >= 1 else 1
    expert_shard = plan.expert_replicas(data) if plan.zero_stage >= 1 else 1
    uses = []
    for rank, chunks in enumerate(network.chunks(plan)):
        blocks = [block for chunk in chunks for block in chunk]
        held = held_parameters(blocks)
        micro = in_flight(plan.schedule, plan.pipeline, micro_batches, rank, plan.virtual_stages)
        inner = [block for block in blocks if block is not network.last]
        activations = sum(block.kept_bytes for block in inner) * micro
        if plan.recompute == "full":  # the layer being recomputed unfolds its activations once
            activations += max((block.activation_bytes for block in inner if block.recompute), default=0.0)
        parts = {
            "weights": WEIGHT_BYTES * held.total,
            "gradients": GRADIENT_BYTES * held.trained,
            "optimizer state": state * (held.dense / shard + held.experts / expert_shard),
            "activations": activations,
        }
        tables = sum(block.table_bytes for block in blocks)
        if tables:
            parts["tables"] = tables
        if rank == plan.pipeline - 1:  # logits in 16 bit, and in fp32 for the loss
            parts["logits"] = network.last.kept_bytes
        uses.append(MemoryUse(rank, parts, capacity_bytes, USABLE_FRAC * capacity_bytes))
    return tuple(uses)
