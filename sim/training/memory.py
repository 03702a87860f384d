"""How full a device gets, part by part, and whether the plan fits.

Like packing a car before a trip: weights, gradients and optimizer state lie in the boot for the whole journey,
activations come and go with the micro-batches that are under way.
"""

from __future__ import annotations

from dataclasses import replace

from sim.cost.optimizer import WEIGHT_BYTES
from sim.results.step import MemoryUse
from sim.spec.workload import Training
from sim.training.data_parallel import state_bytes
from sim.training.layers import Network
from sim.training.schedules import in_flight
from sim.training.weights import Held, held_parameters

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
        data: ranks that hold the same dense weights (ZeRO shares out state over them).
        capacity_bytes: the device's memory.
    """
    plan = training.plan
    dealt = network.chunks(plan)
    uses = []
    for rank, chunks in enumerate(dealt):
        mirror = plan.pipeline - 1 - rank if plan.schedule == "dualpipe" else rank
        blocks = [block for chunk in chunks for block in chunk]
        inner = [block for block in blocks if block is not network.last]
        if mirror != rank:  # also holds the stage that mirrors its own
            blocks += [block for chunk in dealt[mirror] for block in chunk]
        micro = in_flight(plan.schedule, plan.pipeline, micro_batches, rank, plan.virtual_stages)
        activations = sum(block.kept_bytes for block in inner) * micro
        if plan.recompute in ("operators", "full"):  # the layer being recomputed unfolds its activations once
            activations += max((block.activation_bytes for block in inner if block.recompute), default=0.0)
        parts = {
            **_state(held_parameters(blocks), len(inner), training, data),
            "activations": activations,
        }
        tables = sum(block.table_bytes for block in blocks)
        if tables:
            parts["tables"] = tables
        if plan.pipeline - 1 in (rank, mirror):  # logits in 16 bit, and in fp32 for the loss
            parts["logits"] = network.last.kept_bytes
        uses.append(MemoryUse(rank, parts, capacity_bytes, USABLE_FRAC * capacity_bytes))
    return tuple(uses)


def _state(held: Held, layers: int, training: Training, data: int) -> dict[str, float]:
    """Bytes of weights, gradients and optimizer state: dense, of experts (shared by fewer ranks), and frozen."""
    plan = training.plan
    parts = state_bytes(held.dense, layers, training, data)
    if held.experts:
        apart = replace(training, plan=replace(plan, shard_ranks=0))
        more = state_bytes(held.experts, layers, apart, plan.expert_replicas(data))
        parts = {name: parts.get(name, 0.0) + more.get(name, 0.0) for name in parts | more}
    shard = (plan.shard_ranks or data) if plan.zero_stage >= 3 else 1
    parts["weights"] += WEIGHT_BYTES * held.frozen / shard
    return parts
