"""A program: every task of one training step, in order, on the stream that runs it.

Like the call sheet of a film day: who does what, after whom, on which stage. It holds durations but no clock; the
engine is the only one that knows what time it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.training.cut_pass import Gathers, add_cut_pass, whole_pass
from sim.training.finish import add_reductions, add_updates, finished_chunks
from sim.training.program_parts import (
    COMPUTE,
    HOST,
    LOADER,
    SEND_BACKWARD,
    SEND_FORWARD,
    TENSOR,
    ChunkCost,
    Options,
    Program,
    StepCost,
)
from sim.training.schedules import BACKWARD, FORWARD, INPUT, WEIGHT, Pass, order_of, stages_of


def build(cost: StepCost, options: Options) -> Program:
    """The program of one step: loading, passes in schedule order, gradient reduction, update.

    Dependencies only point to what must come first: a pass waits for its input from the neighbouring (virtual) stage,
    a rank's passes follow one another, the update waits for every gradient (the global norm needs them all).
    """
    return build_together([(cost, options)])


def build_together(copies: Sequence[tuple[StepCost, Options]]) -> Program:
    """The program of copies of one model on unlike devices: a reduction starts when every copy has what it reduces.

    The ranks of a copy follow those of the copy before. All copies have the same stages and chunks; they may differ in
    durations and in micro-batches.
    """
    program = Program(contention=copies[0][1].contention)
    finished = []
    for number, (cost, options) in enumerate(copies):
        program.first_rank = number * options.stages
        loads = _loads(program, cost, options)
        gathers = [Gathers(options.overlap_weights, not options.gather_once) for _ in range(options.stages)]
        ends = _passes(program, cost, options, loads, gathers)
        finished.append(finished_chunks(program, cost, options, ends, gathers))
    reduced = []
    for number, (cost, options) in enumerate(copies):
        program.first_rank = number * options.stages
        reduced.append(add_reductions(program, cost, options, finished))
    add_updates(program, copies, reduced)
    return program


def _loads(program: Program, cost: StepCost, options: Options) -> list[int]:
    if cost.load_s <= 0:
        return []
    if not options.prefetch:  # the whole batch first: one wait, so that the books know what it was for
        return [program.add(0, LOADER, "load", cost.load_s * options.micro_batches)]
    return [program.add(0, LOADER, "load", cost.load_s, micro_batch=m) for m in range(options.micro_batches)]


def _passes(
    program: Program, cost: StepCost, options: Options, loads: Sequence[int], gathers: Sequence[Gathers]
) -> list[list[int]]:
    """Add all passes in schedule order; returns, by rank and chunk, the task that completes its gradients."""
    p, v, m = options.stages, options.virtual_stages, options.micro_batches
    stages = [stages_of(options.schedule, p, rank, v) for rank in range(p)]
    last = max(map(max, stages))
    holder = {stage: rank for rank, held in enumerate(stages) for stage in held}
    orders = [order_of(options.schedule, p, m, rank, v, options.group) for rank in range(p)]
    final = [{step.chunk: step for step in order if step.phase == BACKWARD} for order in orders]
    opening = [{step.chunk: step for step in reversed(order) if step.phase == FORWARD} for order in orders]
    usual = not cost.weights_s and not any(chunk.offload_s for costs in cost.chunks for chunk in costs)
    cut = options.overlap_gradients and options.gradient_buckets > 1
    arrival: dict[tuple[str, int, int], int] = {}
    ends = [[-1] * len(held) for held in stages]
    position = [0] * p
    waiting = list(range(p))
    while waiting:  # ranks advance as far as their inputs exist, so that a task only names tasks before it
        progress = False
        for rank in list(waiting):
            order = orders[rank]
            while position[rank] < len(order):
                begin = position[rank]
                together = order[begin : begin + 2] if order[begin].paired else order[begin : begin + 1]
                after = _inputs(together, stages[rank], last, arrival)
                if after is None:
                    break
                for step in together:
                    if stages[rank][step.chunk] == 0 and step.phase == FORWARD and loads:
                        after.append(loads[step.micro_batch] if options.prefetch else loads[-1])
                if len(together) > 1 or together[0].phase in (INPUT, WEIGHT):
                    task = _run(program, rank, together, cost.chunks[rank], after)
                elif usual and not (cut and final[rank].get(together[0].chunk) == together[0]):
                    step = together[0]
                    task = whole_pass(
                        program, rank, step, cost.chunks[rank][step.chunk], after, gathers[rank]
                    )
                else:
                    step = together[0]
                    edge = (opening[rank].get(step.chunk) == step, final[rank].get(step.chunk) == step)
                    task = _one_pass(program, rank, step, cost, after, options, gathers[rank], edge)
                for step in together:
                    if step.phase in (BACKWARD, WEIGHT):
                        ends[rank][step.chunk] = task
                    if step.phase == WEIGHT:
                        continue
                    phase = FORWARD if step.phase == FORWARD else BACKWARD
                    neighbour = stages[rank][step.chunk] + (1 if phase == FORWARD else -1)
                    if 0 <= neighbour <= last:
                        key = (phase, neighbour, step.micro_batch)
                        seconds = cost.message_s(rank, holder[neighbour])
                        arrival[key] = _send(program, rank, step, seconds, task, options)
                position[rank] += len(together)
                progress = True
            if position[rank] == len(order):
                waiting.remove(rank)
        if not progress:
            raise RuntimeError("the schedule waits for itself")
    return ends


def _inputs(
    together: Sequence[Pass], stages: Sequence[int], last: int, arrival: dict[tuple[str, int, int], int]
) -> list[int] | None:
    """Tasks that bring what the passes need from neighbouring stages; None while one of them is not on its way."""
    found: list[int] = []
    for phase, chunk, micro_batch, _ in together:
        forward = phase == FORWARD
        if phase == WEIGHT or stages[chunk] == (0 if forward else last):
            continue
        task = arrival.get((FORWARD if forward else BACKWARD, stages[chunk], micro_batch))
        if task is None:
            return None
        found.append(task)
    return found


def _run(
    program: Program, rank: int, together: Sequence[Pass], costs: Sequence[ChunkCost], after: Sequence[int]
) -> int:
    """One pass, or a forward interwoven with a backward; returns the task after which the results are there.

    Tensor messages sit between the kernels of a pass: the next pass cannot start before. In a pair each pass computes
    while the other one's messages are under way, so the pair takes the longer of its kernels and its messages.
    """
    _, chunk, micro_batch, _ = together[-1]
    tensor = sum(_tensor_s(step, costs[step.chunk]) for step in together)
    gate = after
    if tensor > 0 and len(together) > 1:
        gate = (program.add(rank, COMPUTE, "join", 0.0, after, micro_batch, chunk),)
    task = -1
    for number, step in enumerate(together):
        kind = "backward" if step.phase == INPUT else step.phase
        seconds = _compute_s(step, costs[step.chunk])
        first = gate if number == 0 else ()
        task = program.add(rank, COMPUTE, kind, seconds, first, step.micro_batch, step.chunk)
    if tensor > 0:
        start = gate if len(together) > 1 else (task,)
        sent = program.add(rank, TENSOR, "tensor", tensor, start, micro_batch, chunk)
        join = program.add(rank, COMPUTE, "join", 0.0, (sent,), micro_batch, chunk)
        task = join if len(together) > 1 else sent
    return task


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

    Nor can it before the pass's activations are with the host, or back from there: layer by layer, beside the pass.
    ``ends`` says whether it is its chunk's first forward and whether it is its last backward.
    """
    (first, last), once = ends, options.gather_once
    copy_s, copied = cost.chunks[rank][step.chunk].offload_s, -1
    if copy_s > 0:
        gate = program.add(rank, COMPUTE, "join", 0.0, after, step.micro_batch, step.chunk)
        copied = program.add(rank, HOST, "offload", copy_s, (gate,), step.micro_batch, step.chunk)
        after = ()
    task = add_cut_pass(
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
    if copied < 0:
        return task
    ready = program.add(rank, COMPUTE, "join", 0.0, (task, copied), step.micro_batch, step.chunk)
    return task if step.phase == FORWARD else ready


def _compute_s(step: Pass, cost: ChunkCost) -> float:
    whole = {FORWARD: cost.forward_s, BACKWARD: cost.backward_s, WEIGHT: cost.weight_s}
    return whole.get(step.phase, cost.backward_s - cost.weight_s)


def _tensor_s(step: Pass, cost: ChunkCost) -> float:
    if step.phase == WEIGHT:
        return 0.0
    return cost.forward_tensor_s if step.phase == FORWARD else cost.backward_tensor_s


def _send(program: Program, rank: int, step: Pass, seconds: float, task: int, options: Options) -> int:
    phase, chunk, micro_batch, _ = step
    if options.stages == 1 or seconds <= 0:
        return task
    stream = SEND_FORWARD if phase == FORWARD else SEND_BACKWARD
    sent = program.add(rank, stream, "send", seconds, (task,), micro_batch, chunk)
    if not options.overlap_pipeline:
        program.add(rank, COMPUTE, "join", 0.0, (sent,), micro_batch, chunk)
    return sent
