"""A pass cut where messages may start or must have arrived: gradient buckets and the weight gathers of ZeRO 3.

Like a long piece with bars marked for the stagehands: at one mark the first props can be cleared away, at another the
next must be in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sim.training.program_parts import COMPUTE, TENSOR, WEIGHTS, ChunkCost, Program
from sim.training.schedules import FORWARD, Pass


@dataclass(slots=True)
class Gathers:
    """The weight gathers of one pipeline rank: where the next one may start."""

    overlap: bool
    limited: bool = True
    """Whether weights are dropped after use (ZeRO 3); if not (ZeRO 1, 2) nothing bounds how far gathers run ahead."""
    ready: tuple[int, ...] = ()
    """With overlap, the work before the last layer of the pass before: from there on the next layer may be gathered
    (FSDP keeps two layers unsharded at most). Without, the end of the pass before."""
    previous: int | None = None
    """The task that completed the pass before."""
    early: dict[int, int] = field(default_factory=dict)
    """Chunk -> task after which its first gradient buckets are complete."""

    def passed(self, task: int, before_last: int | None) -> None:
        """Note the end of a pass, and of the work before its last layer where it was cut there."""
        if not self.limited:
            self.ready = ()
        elif not self.overlap:
            self.ready = (task,)
        elif before_last is not None:
            self.ready = (before_last,)
        else:  # a chunk of one layer: the next gather runs beside its only piece, which starts when the one before ends
            self.ready = () if self.previous is None else (self.previous,)
        self.previous = task


def add_cut_pass(
    program: Program,
    rank: int,
    step: Pass,
    cost: ChunkCost,
    after: Sequence[int],
    state: Gathers,
    *,
    gather_s: float = 0.0,
    layers: int = 1,
    buckets: int = 1,
) -> int:
    """Add one pass in pieces and return the task that completes it.

    A chunk of L equal layers whose weights are gathered one by one ahead of the compute takes
    g + (L-1) max(g, c) + c: gather and compute form a flow shop of two machines. It is cut before the last layer; the
    last gather must have arrived there. A last backward with B gradient buckets is cut after the first: from there B-1
    of B may travel, the last follows the pass, which again is a flow shop: c + (B-1) max(c, r) + r.

    Args:
        gather_s: gathering all weights of the chunk once; 0 = they are there.
        layers: layers of the chunk.
        buckets: gradient buckets of a last backward, 1 for any other pass.
    """
    if gather_s <= 0 and buckets <= 1:  # the usual pass has nothing to be cut for
        return whole_pass(program, rank, step, cost, after, state)
    layers = max(layers, 1)
    place = {"micro_batch": step.micro_batch, "chunk": step.chunk}
    first = rest = None
    waits = list(after)
    if gather_s > 0:
        one = gather_s / layers if state.overlap else gather_s
        begin = state.ready if state.overlap else (*state.ready, *after)
        first = program.add(rank, WEIGHTS, "parameters", one, begin, **place)
        waits.append(first)
        if state.overlap and layers > 1:
            rest = program.add(rank, WEIGHTS, "parameters", gather_s - one, (), **place)
    last_layer = 1 - 1 / layers
    cuts = {1.0} | ({last_layer} if rest is not None else set()) | ({1 / buckets} if buckets > 1 else set())
    done, task, before_last = 0.0, -1, None
    for cut in sorted(cuts):
        if rest is not None and done >= last_layer:
            before_last = task if task >= 0 else None
            waits.append(rest)
        task = _piece(program, rank, step, cost, cut - done, waits)
        done, waits = cut, []
        if buckets > 1 and cut == 1 / buckets:
            state.early[step.chunk] = task
    state.passed(task, before_last)
    return task


def whole_pass(
    program: Program, rank: int, step: Pass, cost: ChunkCost, after: Sequence[int], state: Gathers
) -> int:
    """Add a pass that nothing cuts and return the task that completes it."""
    task = _piece(program, rank, step, cost, 1.0, after)
    state.passed(task, None)
    return task


def _piece(
    program: Program, rank: int, step: Pass, cost: ChunkCost, share: float, after: Sequence[int]
) -> int:
    phase, chunk, micro_batch, _ = step
    if phase == FORWARD:
        seconds, tensor = share * cost.forward_s, share * cost.forward_tensor_s
    else:
        seconds, tensor = share * cost.backward_s, share * cost.backward_tensor_s
    task = program.add(rank, COMPUTE, phase, seconds, after, micro_batch, chunk)
    if tensor > 0:
        task = program.add(rank, TENSOR, "tensor", tensor, (task,), micro_batch, chunk)
        program.add(rank, COMPUTE, "join", 0.0, (task,), micro_batch, chunk)
    return task
