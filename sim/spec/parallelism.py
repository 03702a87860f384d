"""A parallel plan: how one training job is cut over many devices.

Like the seating plan of an orchestra: who plays the same part (data parallel), who shares one instrument (tensor
parallel), and who hands the piece on (pipeline parallel).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.spec.fields import choice, count, counts, fraction, quantity, switch, texts

RECOMPUTE = ("none", "selective", "operators", "full")
UNFOLDED = ("operators", "full")
"""Ways under which the layer being recomputed holds all its activations for a moment."""
SCHEDULES = ("1f1b", "gpipe", "zb-h1", "dualpipe")

ATTENTION_KERNELS = ("newest", "flash-2", "flash-1")
"""See :mod:`sim.cost.kernels.attention_kernels`."""
CONTEXT_EXCHANGES = ("ring", "all-to-all")
COMPRESSIONS = ("none", "fp16", "fp8", "top-k", "power-sgd", "1-bit")


@dataclass(frozen=True, slots=True)
class ParameterServer:
    """Servers that hold the parameters: workers push gradients to them and pull weights from them."""

    servers: int = count("servers that share the parameters", 1)
    server_bytes_per_s: float = quantity("network bandwidth of one server; 0 = that of a node", 0.0)
    asynchronous: bool = switch("each worker goes on without waiting for the others' gradients", False)
    staleness: int | None = count(
        "steps an asynchronous worker may lead the slowest before it waits; none = no bound", None, low=0
    )
    jitter_frac: float = fraction(
        "standard deviation of a worker's compute time from step to step, over its mean", 0.0
    )


@dataclass(frozen=True, slots=True)
class Compression:
    """Gradients made smaller before they are sent."""

    method: str = choice(COMPRESSIONS, "how gradients are made smaller", "none")
    keep_frac: float = fraction("share of the gradient values that top-k sends", 0.01)
    rank: int = count("columns of the factors that PowerSGD sends", 4)


@dataclass(frozen=True, slots=True)
class Plan:
    """Parallel degrees and the choices that go with them. Data parallel is what the devices leave over."""

    tensor: int = count("tensor parallel degree: ranks that share each layer's matrices", 1)
    pipeline: int = count("pipeline stages", 1)
    stages: tuple[str, ...] = texts(
        "pool of each pipeline stage, by name, where the stages of a copy sit on unlike pools; left out: every pool "
        "holds whole copies"
    )
    layers_per_stage: tuple[int, ...] = counts(
        "layers of each pipeline stage; left out: as even as can be, or on unlike pools so that the slowest stage is "
        "fastest and each fits into its memory"
    )
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
    dispatch_once: bool = switch(
        "a token travels once to each rank (or node, with expert_nodes) that holds experts of its choice, not once an "
        "expert",
        False,
    )
    overlap_experts: bool = switch(
        "expert messages travel beside the kernels of another micro-batch, and only what outlasts them is waited for",
        False,
    )
    split_experts: bool = switch("cut each expert over the tensor group, as the dense matrices", True)
    micro_batch: int = count("sequences (samples) a micro-batch", 1)
    virtual_stages: int = count("model chunks per pipeline rank (interleaved 1F1B when above 1)", 1)
    schedule: str = choice(SCHEDULES, "pipeline schedule", "1f1b")
    sequence_parallel: bool = switch(
        "shard norms and dropout along the sequence within the tensor group", False
    )
    zero_stage: int = count(
        "ZeRO stage: what data-parallel ranks share out instead of each keeping a copy: 0 nothing, 1 optimizer state, "
        "2 gradients too, 3 weights too (FSDP)",
        0,
        low=0,
        high=3,
    )
    shard_ranks: int = count(
        "data-parallel ranks that share one sharded copy (HSDP); 0 = all of them", 0, low=0
    )
    recompute: str = choice(
        RECOMPUTE,
        "activations recomputed in backward: none, selective (attention), operators (all of a transformer's layer but "
        "attention and every second matrix product), full",
        "none",
    )
    recompute_stops_early: bool = switch(
        "full recomputation leaves out a layer's last product, whose output nothing in backward needs", False
    )
    recompute_layers: int | None = count(
        "layers of each chunk that recompute applies to, the first ones; left out: all of them",
        None,
        low=0,
    )
    flash_attention: bool = switch("attention in one fused kernel, no score matrix in memory", True)
    attention_kernel: str = choice(
        ATTENTION_KERNELS, "fused attention kernel: the device's newest, FlashAttention-2 or -1", "newest"
    )
    fused_accumulation: bool = switch(
        "weight gradients are added to the fp32 main gradients inside their product, not by a pass of their own",
        True,
    )
    overlap_gradients: bool = switch("reduce gradients while the last backward still runs", True)
    overlap_weights: bool = switch("ZeRO 3 gathers a layer's weights while the one before computes", True)
    overlap_parameters: bool = switch(
        "ZeRO 1 and 2 gather updated weights while the next step's first forward runs", False
    )
    gradient_buckets: int = count(
        "messages that a chunk's gradients are cut into, all but the last sent early under overlap; 0 = one, and under "
        "ZeRO 3 one a layer",
        0,
        low=0,
        high=1000,
    )
    offload_optimizer: bool = switch("optimizer state in host memory, updated there", False)
    offload_activations: float = fraction(
        "share of the activations that wait for their backward pass in host memory; copied beside the passes",
        0.0,
    )
    local_steps: int = count("steps between exchanges (local SGD, DiLoCo); 1 = every step", 1)
    compression: Compression = field(default_factory=Compression)
    parameter_server: ParameterServer | None = None
    overlap_tensor: bool = switch(
        "tensor messages travel in chunks beside the matrix products they feed (needs sequence_parallel)",
        False,
    )
    overlap_pipeline: bool = switch("send activations while the next micro-batch computes", True)
    share_network: bool = switch(
        "pipeline and data-parallel messages that leave the node slow each other down", False
    )
    overlap_slowdown_frac: float = fraction(
        "how much longer kernels take beside a message of their rank", 0.0
    )

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
