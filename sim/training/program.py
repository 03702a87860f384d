"""A program: every task of one training step, in order, on the stream that runs it.

Like the call sheet of a film day: who does what, after whom, on which stage. It holds durations but no clock; the
engine is the only one that knows what time it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sim.results.timeline import Task
from sim.training.cut_pass import Gathers, add_cut_pass
from sim.training.schedules import BACKWARD, FORWARD, Pass, order_of

COMPUTE, TENSOR, SEND_FORWARD, SEND_BACKWARD, GRADIENTS, LOADER = (
    "compute",
    "tensor",
    "send forward",
    "send backward",
    "gradients",
    "loader",
)


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """Seconds of one model chunk for one micro-batch on one pipeline rank."""

    forward_s: float
    backward_s: float
    """Includes recomputation."""
    forward_tensor_s: float = 0.0
    backward_tensor_s: float = 0.0
    """Tensor-parallel messages that nothing hides."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Everything a program needs to know about durations: one number per piece of work."""

    chunks: Sequence[Sequence[ChunkCost]]
    """By pipeline rank, then chunk."""
    send_s: float = 0.0
    """One activation message between neighbouring stages."""
    gradients_s: Sequence[Sequence[float]] = ()
    """Gradient reduction by rank and chunk."""
    optimizer_s: Sequence[float] = ()
    parameters_s: Sequence[float] = ()
    """Gathering updated weights (ZeRO 1), by rank."""
    load_s: float = 0.0
    """Bringing one micro-batch of every data-parallel copy to the device."""
    weights_s: Sequence[Sequence[float]] = ()
    """Gathering a chunk's weights for one pass (ZeRO 3), by rank and chunk; empty where every rank holds them."""
    layers: Sequence[Sequence[int]] = ()
    """Layers by rank and chunk: weights are gathered one layer after another."""


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
    overlap_weights: bool = True
    gather_once: bool = False
    """Weights are gathered for a chunk's first forward only (ZeRO 1 and 2 that hide the gather), not for every pass."""
    gradient_buckets: int = 1
    """Messages of a chunk's gradients; with overlap all but the last start inside its last backward."""


@dataclass(slots=True)
class Program:
    """Tasks in order of creation; a stream runs its own tasks in that order."""

    tasks: list[Task] = field(default_factory=list)

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
        self.tasks.append(Task(rank, stream, kind, micro_batch, chunk, duration_s, tuple(after)))
        return len(self.tasks) - 1


def build(cost: StepCost, options: Options) -> Program:
    """The program of one step: loading, passes in schedule order, gradient reduction, update.

    Dependencies only point to what must come first: a pass waits for its input from the neighbouring (virtual) stage,
    a rank's passes follow one another, the update waits for every gradient (the global norm needs them all).
    """
    program = Program()
    loads = _loads(program, cost, options)
    gathers = [Gathers(options.overlap_weights, not options.gather_once) for _ in range(options.stages)]
    passes = _passes(program, cost, options, loads, gathers)
    reduced = _reductions(program, cost, options, passes, gathers)
    _updates(program, cost, options, reduced)
    return program


def _loads(program: Program, cost: StepCost, options: Options) -> list[int]:
    if cost.load_s <= 0:
        return []
    return [program.add(0, LOADER, "load", cost.load_s, micro_batch=m) for m in range(options.micro_batches)]


def _passes(
    program: Program, cost: StepCost, options: Options, loads: Sequence[int], gathers: Sequence[Gathers]
) -> dict[tuple[str, int, int], int]:
    """Add forward and backward passes; returns the number of the task that completes each."""
    p, v, m = options.stages, options.virtual_stages, options.micro_batches
    last = p * v - 1
    orders = [order_of(options.schedule, p, m, rank, v) for rank in range(p)]
    final = [{step.chunk: step for step in order if step.phase == BACKWARD} for order in orders]
    opening = [{step.chunk: step for step in reversed(order) if step.phase == FORWARD} for order in orders]
    arrival: dict[tuple[str, int, int], int] = {}
    done: dict[tuple[str, int, int], int] = {}
    position = [0] * p
    waiting = list(range(p))
    while waiting:  # ranks advance as far as their inputs exist, so that a task only names tasks before it
        progress = False
        for rank in list(waiting):
            order = orders[rank]
            while position[rank] < len(order):
                step = order[position[rank]]
                stage = step.chunk * p + rank
                first = stage == 0 if step.phase == FORWARD else stage == last
                needed = arrival.get((step.phase, stage, step.micro_batch))
                if not first and needed is None:
                    break
                after = [] if needed is None else [needed]
                if stage == 0 and step.phase == FORWARD and loads:
                    after.append(loads[step.micro_batch] if options.prefetch else loads[-1])
                ends = (opening[rank].get(step.chunk) == step, final[rank].get(step.chunk) == step)
                task = _one_pass(program, rank, step, cost, after, options, gathers[rank], ends)
                done[(step.phase, stage, step.micro_batch)] = task
                neighbour = stage + 1 if step.phase == FORWARD else stage - 1
                if 0 <= neighbour <= last:
                    key = (step.phase, neighbour, step.micro_batch)
                    arrival[key] = _send(program, rank, step, cost.send_s, task, options)
                position[rank] += 1
                progress = True
            if position[rank] == len(order):
                waiting.remove(rank)
        if not progress:
            raise RuntimeError("the schedule waits for itself")
    return done


def _one_pass(
    program: Program,
    rank: int,
    step: Pass,
    cost: StepCost,
    after: Sequence[int],
    options: Options,
    gathers: Gathers,
    ends: tuple[bool, bool],
) -> int:
    """Add one pass; its tensor messages sit between its kernels: the next pass cannot start before they end.

    ``ends`` says whether it is its chunk's first forward and whether it is its last backward.
    """
    (first, last), once = ends, options.gather_once
    return add_cut_pass(
        program,
        rank,
        step,
        cost.chunks[rank][step.chunk],
        after,
        gathers,
        gather_s=cost.weights_s[rank][step.chunk] if cost.weights_s and (first or not once) else 0.0,
        layers=cost.layers[rank][step.chunk] if cost.layers else 1,
        buckets=options.gradient_buckets if last and options.overlap_gradients else 1,
    )


def _send(program: Program, rank: int, step: Pass, seconds: float, task: int, options: Options) -> int:
    phase, chunk, micro_batch = step
    if options.stages == 1 or seconds <= 0:
        return task
    stream = SEND_FORWARD if phase == FORWARD else SEND_BACKWARD
    sent = program.add(rank, stream, "send", seconds, (task,), micro_batch, chunk)
    if not options.overlap_pipeline:
        program.add(rank, COMPUTE, "join", 0.0, (sent,), micro_batch, chunk)
    return sent


def _reductions(
    program: Program,
    cost: StepCost,
    options: Options,
    done: dict[tuple[str, int, int], int],
    gathers: Sequence[Gathers],
) -> list[list[int]]:
    """Gradient reductions: a chunk's starts with its last backward, or all after the rank's last one."""
    p, v, m = options.stages, options.virtual_stages, options.micro_batches
    reduced: list[list[int]] = []
    for rank in range(p):
        ends = [max(done[(BACKWARD, chunk * p + rank, k)] for k in range(m)) for chunk in range(v)]
        tasks = []
        for chunk in sorted(range(v), key=lambda c: ends[c]):
            seconds = cost.gradients_s[rank][chunk] if cost.gradients_s else 0.0
            after: tuple[int, ...] = (ends[chunk],) if options.overlap_gradients else (max(ends),)
            early = gathers[rank].early.get(chunk)
            if seconds > 0 and early is not None:  # all buckets but the last
                share = 1 - 1 / options.gradient_buckets
                sent = program.add(rank, GRADIENTS, "gradients", seconds * share, (early,), chunk=chunk)
                after = (*after, sent)
                seconds *= 1 - share
            if seconds > 0:
                tasks.append(program.add(rank, GRADIENTS, "gradients", seconds, after, chunk=chunk))
            else:
                tasks.append(ends[chunk])
        reduced.append(tasks)
    return reduced


def _updates(program: Program, cost: StepCost, options: Options, reduced: Sequence[Sequence[int]]) -> None:
    if not cost.optimizer_s:
        return
    every = sorted({task for tasks in reduced for task in tasks})
    ready = program.add(0, GRADIENTS, "norm", 0.0, every)
    for rank in range(options.stages):
        update = program.add(rank, COMPUTE, "optimizer", cost.optimizer_s[rank], (ready,))
        if cost.parameters_s and cost.parameters_s[rank] > 0:
            gathered = program.add(rank, GRADIENTS, "parameters", cost.parameters_s[rank], (update,))
            program.add(rank, COMPUTE, "join", 0.0, (gathered,))
