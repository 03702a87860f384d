"""How full a device gets, part by part, and whether the plan fits.

Like packing a car before a trip: weights, gradients and optimizer state lie in the boot for the whole journey,
activations come and go with the micro-batches that are under way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from sim.cost.optimizer import WEIGHT_BYTES
from sim.results.step import MemoryUse
from sim.spec.ops import Block
from sim.spec.workload import Training
from sim.training.data_parallel import state_bytes
from sim.training.layers import Network
from sim.training.schedules import in_flight
from sim.training.weights import Held, held_parameters

UNFOLDING = ("operators", "full")
"""Ways of recomputing that bring back a whole layer's activations at a time."""
USABLE_FRAC = 0.94
"""Share of the datasheet capacity a job can fill: the rest is context, NCCL buffers and fragmentation (assumed;
SimuMax budgets the same)."""


def memory_use(
    network: Network,
    training: Training,
    micro_batches: int,
    data: int,
    capacity_bytes: float | Sequence[float],
) -> tuple[MemoryUse, ...]:
    """Peak memory of a device in each pipeline rank.

    Args:
        network: blocks of the model on one device.
        micro_batches: micro-batches of one copy in a step.
        data: ranks that hold the same dense weights (ZeRO shares out state over them).
        capacity_bytes: the device's memory; by rank where devices are unlike.
    """
    plan = training.plan
    dealt = [[block for chunk in chunks for block in chunk] for chunks in network.chunks(plan)]
    sizes = capacity_bytes if isinstance(capacity_bytes, Sequence) else [capacity_bytes] * plan.pipeline
    uses = []
    for rank, blocks in enumerate(dealt):
        mirror = plan.pipeline - 1 - rank if plan.schedule == "dualpipe" else rank
        also = dealt[mirror] if mirror != rank else []  # the stage that mirrors its own
        parts = _parts_bytes(network, training, micro_batches, data, rank, blocks, also)
        uses.append(MemoryUse(rank, parts, sizes[rank], USABLE_FRAC * sizes[rank]))
    return tuple(uses)


def most_layers(
    network: Network, training: Training, micro_batches: int, data: int, capacity_bytes: Sequence[float]
) -> list[int]:
    """Layers that the device of each pipeline rank has room for (0 = not even one), all taken as the first ones."""
    layers, last = network.layers, training.plan.pipeline - 1
    found = []
    for rank, size in enumerate(capacity_bytes):

        def fits(count: int, rank: int = rank, size: float = size) -> bool:
            blocks = [network.first] if rank == 0 else []
            blocks += [*layers[:count], *([network.last] if rank == last else [])]
            parts = _parts_bytes(network, training, micro_batches, data, rank, blocks)
            return sum(parts.values()) <= USABLE_FRAC * size

        found.append(bisect_right(range(1, len(layers) + 1), 0, key=lambda count: 0 if fits(count) else 1))
    return found


def _parts_bytes(
    network: Network,
    training: Training,
    micro_batches: int,
    data: int,
    rank: int,
    blocks: Sequence[Block],
    mirrored: Sequence[Block] = (),
) -> dict[str, float]:
    """Bytes by part on a device of ``rank`` with these blocks (and those of the stage that DualPipe adds)."""
    plan = training.plan
    held = [*blocks, *mirrored]
    inner = [block for block in blocks if block is not network.last]
    micro = in_flight(plan.schedule, plan.pipeline, micro_batches, rank, plan.virtual_stages)
    activations = sum(block.kept_bytes for block in inner) * micro
    if plan.recompute in UNFOLDING:  # the layer being recomputed unfolds its activations once
        activations += max((block.activation_bytes for block in inner if block.recompute), default=0.0)
    if plan.offload_activations:  # a layer under way to the host and one in use
        buffers = 2 * max((block.kept_bytes for block in inner), default=0.0)
        activations -= plan.offload_activations * max(activations - buffers, 0.0)
    parts = {
        **state_parts(held_parameters(held), len(inner), training, data),
        "activations": activations,
    }
    tables = sum(block.table_bytes for block in held)
    if tables:
        parts["tables"] = tables
    if any(block is network.last for block in held):  # logits in 16 bit, and in fp32 for the loss
        parts["logits"] = network.last.kept_bytes
    return parts


def state_parts(held: Held, layers: int, training: Training, data: int) -> dict[str, float]:
    """Bytes of weights, gradients and optimizer state: dense, of experts (shared by fewer ranks), and frozen."""
    plan = training.plan
    parts = state_bytes(held.dense, layers, training, data)
    if held.experts:
        apart = replace(training, plan=replace(plan, shard_ranks=0))
        more = state_bytes(held.experts, layers, apart, plan.expert_replicas(data))
        parts = {name: parts.get(name, 0.0) + more.get(name, 0.0) for name in parts | more}
    shard = (plan.shard_ranks or data) if plan.zero_stage >= 3 else 1
    apart_shard = plan.expert_replicas(data) if plan.zero_stage >= 3 else 1
    for frozen, ranks in ((held.frozen, shard), (held.frozen_experts, apart_shard)):
        parts["weights"] += WEIGHT_BYTES * frozen / ranks
        if ranks > 1 and frozen:  # two layers gathered at a time, as of trained weights; nothing is reduced
            parts["unsharded layers"] = parts.get("unsharded layers", 0.0) + 2 * WEIGHT_BYTES * frozen / max(
                layers, 1
            )
    return parts
