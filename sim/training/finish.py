"""How a step ends: gradients are reduced, all copies take part, every rank updates.

Like clearing the table together: nobody gets up before the last one has finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.training.cut_pass import Gathers
from sim.training.program_parts import COMPUTE, GRADIENTS, Options, Program, StepCost


@dataclass(frozen=True, slots=True)
class Finished:
    """What the reduction of one chunk's gradients waits for in one copy of the model."""

    chunk: int
    ready: int
    """The task that completes the gradients (and the wait for slower copies of the same kind)."""
    early: int | None
    """The task after which all buckets but the last are complete; None = they are not sent early."""


def finished_chunks(
    program: Program,
    cost: StepCost,
    options: Options,
    ends: Sequence[Sequence[int]],
    gathers: Sequence[Gathers],
) -> list[list[Finished]]:
    """By rank, in the order of the reductions: a chunk's after its last backward, or all after the rank's last one.

    Where other copies are slower, each is ready so much later: all copies take part in a reduction.
    """
    found: list[list[Finished]] = []
    for rank, mine in enumerate(ends):
        chunks = []
        for chunk in sorted(range(len(mine)), key=mine.__getitem__):
            ready = mine[chunk] if options.overlap_gradients else max(mine)
            if cost.straggler_s > 0:  # a stream of its own: waits for several chunks run side by side
                stream = f"stragglers {chunk}"
                ready = program.add(rank, stream, "stragglers", cost.straggler_s, (ready,), chunk=chunk)
            chunks.append(Finished(chunk, ready, gathers[rank].early.get(chunk)))
        found.append(chunks)
    return found


def add_reductions(
    program: Program, cost: StepCost, options: Options, finished: Sequence[Sequence[Sequence[Finished]]]
) -> list[list[int]]:
    """Gradient reductions of one copy, by rank; ``finished`` says for every copy when it can take part."""
    reduced: list[list[int]] = []
    for rank in range(options.stages):
        tasks = []
        for alike in zip(*(copy[rank] for copy in finished), strict=True):
            chunk = alike[0].chunk
            seconds = cost.gradients_s[rank][chunk] if cost.gradients_s else 0.0
            waits = [one.ready for one in alike]
            early = [one.early for one in alike if one.early is not None]
            if seconds > 0 and len(early) == len(alike):  # all buckets but the last
                share = 1 - 1 / options.gradient_buckets
                sent = program.add(rank, GRADIENTS, "gradients", seconds * share, early, chunk=chunk)
                waits.append(sent)
                seconds *= 1 - share
            if seconds > 0:
                waits = [program.add(rank, GRADIENTS, "gradients", seconds, waits, chunk=chunk)]
            tasks += waits
        reduced.append(tasks)
    return reduced


def add_updates(
    program: Program, copies: Sequence[tuple[StepCost, Options]], reduced: Sequence[Sequence[Sequence[int]]]
) -> None:
    """Updates of every rank once the norm over all gradients is known."""
    program.first_rank = 0
    ready = -1
    if any(cost.optimizer_s for cost, _ in copies):
        every = sorted({task for copy in reduced for tasks in copy for task in tasks})
        ready = program.add(0, GRADIENTS, "norm", 0.0, every)
    for number, (cost, options) in enumerate(copies):
        program.first_rank = number * options.stages
        for rank in range(options.stages):
            if not cost.optimizer_s:
                program.add(rank, COMPUTE, "join", 0.0, reduced[number][rank])
                continue
            update = program.add(rank, COMPUTE, "optimizer", cost.optimizer_s[rank], (ready,))
            if cost.parameters_s and cost.parameters_s[rank] > 0:
                gathered = program.add(rank, GRADIENTS, "parameters", cost.parameters_s[rank], (update,))
                program.add(rank, COMPUTE, "join", 0.0, (gathered,))
