"""A parallel plan: how one training job is cut over many devices.

Like the seating plan of an orchestra: who plays the same part (data parallel), who shares one instrument (tensor
parallel), and who hands the piece on (pipeline parallel).
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.spec.fields import choice, count, switch

RECOMPUTE = ("none", "selective", "full")
SCHEDULES = ("1f1b", "gpipe")
CONTEXT_EXCHANGES = ("ring", "all-to-all")


@dataclass(frozen=True, slots=True)
class Plan:
    """Parallel degrees and the choices that go with them. Data parallel is what the devices leave over."""

    tensor: int = count("tensor parallel degree: ranks that share each layer's matrices", 1)
    pipeline: int = count("pipeline stages", 1)
    context: int = count("context parallel degree: ranks that share each sequence", 1)
    context_exchange: str = choice(
        CONTEXT_EXCHANGES,
        "how context ranks meet in attention: keys go round, or heads are exchanged",
        "ring",
    )
    expert: int = count(
        "expert parallel degree: data-parallel (and context) ranks that share the experts of a layer, or tables",
        1,
    )
    expert_nodes: int = count(
        "most nodes a token is routed to, each copy sent once and spread inside the node; 0 = one copy an expert",
        0,
        low=0,
    )
    split_experts: bool = switch("cut each expert over the tensor group, as the dense matrices", True)
    micro_batch: int = count("sequences (samples) a micro-batch", 1)
    virtual_stages: int = count("model chunks per pipeline rank (interleaved 1F1B when above 1)", 1)
    schedule: str = choice(SCHEDULES, "pipeline schedule", "1f1b")
    sequence_parallel: bool = switch(
        "shard norms and dropout along the sequence within the tensor group", False
    )
    zero_stage: int = count(
        "ZeRO stage: 0 none, 1 shards the optimizer state over data-parallel ranks", 0, low=0, high=1
    )
    recompute: str = choice(
        RECOMPUTE, "activations recomputed in backward: none, selective (attention), full", "none"
    )
    flash_attention: bool = switch("attention in one fused kernel, no score matrix in memory", True)
    overlap_gradients: bool = switch("reduce gradients while the last backward still runs", True)
    overlap_pipeline: bool = switch("send activations while the next micro-batch computes", True)

    @property
    def expert_tensor(self) -> int:
        """Ranks that share the matrices of one expert."""
        return self.tensor if self.split_experts else 1

    def expert_replicas(self, replicas: int) -> int:
        """Ranks with the same experts, where ``replicas`` ranks have the same dense weights."""
        return max(self.tensor * replicas // (self.expert_tensor * self.expert), 1)

    @property
    def model_ranks(self) -> int:
        """Devices that hold one copy of the model."""
        return self.tensor * self.pipeline * self.context
