"""What a program of one step is made of: durations of the work, choices of its order, and the list of tasks.

Like the blank call sheet of a film day: the columns are there, nobody is called yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sim.results.timeline import Task
from sim.training.contention import Contention

COMPUTE, TENSOR, SEND_FORWARD, SEND_BACKWARD = "compute", "tensor", "send forward", "send backward"
GRADIENTS, WEIGHTS, LOADER, HOST = "gradients", "weights", "loader", "host link"
"""Streams of a rank: each runs its own tasks one after another, beside the others."""

NO_CONTENTION = Contention()


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """Seconds of one model chunk for one micro-batch on one pipeline rank."""

    forward_s: float
    backward_s: float
    """Includes recomputation."""
    forward_tensor_s: float = 0.0
    backward_tensor_s: float = 0.0
    """Messages of the pass that nothing hides: of the tensor, expert and context groups, and FP8 scales."""
    weight_s: float = 0.0
    """Part of ``backward_s`` that only makes weight gradients: a split backward may put it off."""
    offload_s: float = 0.0
    """Copying activations of one micro-batch to the host in forward, and back in backward: each beside its pass."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Everything a program needs to know about durations: one number per piece of work."""

    chunks: Sequence[Sequence[ChunkCost]]
    """By pipeline rank, then chunk."""
    send_s: float | Sequence[float] = 0.0
    """One activation message between neighbouring stages; by link where links are unlike: number r joins rank r and
    the one after it (the last one and the first, where chunks are interleaved)."""
    gradients_s: Sequence[Sequence[float]] = ()
    """Gradient reduction by rank and chunk."""
    optimizer_s: Sequence[float] = ()
    parameters_s: Sequence[float] = ()
    """Gathering updated weights (ZeRO 1), by rank."""
    load_s: float = 0.0
    """Bringing one micro-batch of every data-parallel copy to the device."""
    straggler_s: float = 0.0
    """How much later than this copy of the model the slowest one ends its passes."""
    weights_s: Sequence[Sequence[float]] = ()
    """Gathering a chunk's weights for one pass (ZeRO 3), by rank and chunk; empty where every rank holds them."""
    layers: Sequence[Sequence[int]] = ()
    """Layers by rank and chunk: weights are gathered one layer after another."""

    def message_s(self, rank: int, neighbour: int) -> float:
        """One activation message between two ranks that are neighbours in the pipeline."""
        if isinstance(self.send_s, float | int):  # asked of an abstract type it takes four times as long
            return self.send_s
        return self.send_s[rank if neighbour == (rank + 1) % len(self.send_s) else neighbour]


@dataclass(frozen=True, slots=True)
class Options:
    """Choices that change the order of tasks, not their length."""

    stages: int
    micro_batches: int
    virtual_stages: int = 1
    schedule: str = "1f1b"
    overlap_gradients: bool = True
    overlap_pipeline: bool = True
    prefetch: int = 0
    """0: the whole batch is loaded before the step computes."""
    contention: Contention = NO_CONTENTION
    overlap_weights: bool = True
    gather_once: bool = False
    """Weights are gathered for a chunk's first forward only (ZeRO 1 and 2 that hide the gather), not for every pass."""
    gradient_buckets: int = 1
    """Messages of a chunk's gradients; with overlap all but the last start inside its last backward."""
    group: int = 0
    """Micro-batches that go through interleaved chunks together; 0 = as many as Megatron-Core would take."""


@dataclass(slots=True)
class Program:
    """Tasks in order of creation; a stream runs its own tasks in that order."""

    tasks: list[Task] = field(default_factory=list)
    contention: Contention = NO_CONTENTION
    first_rank: int = 0
    """Where the ranks of the copy start that is being written down; more than one where copies are unlike."""

    def add(
        self,
        rank: int,
        stream: str,
        kind: str,
        duration_s: float,
        after: Sequence[int] = (),
        micro_batch: int = -1,
        chunk: int = -1,
    ) -> int:
        """Append a task and return its number."""
        tasks = self.tasks
        fields = (self.first_rank + rank, stream, kind, micro_batch, chunk, duration_s, tuple(after))
        tasks.append(_new(Task, fields))  # half the time of Task(*fields), for half a million of them
        return len(tasks) - 1


_new = tuple.__new__
