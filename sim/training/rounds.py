"""A long step without its middle: a few rounds of micro-batches are played, the rest repeat them.

Like a canal lock at a busy hour: once boats queue on both sides, every filling is like the last, and nobody needs to
watch all of them to know when the last boat is through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sim.results.timeline import Skipped, Timeline, walk
from sim.training.engine import play
from sim.training.program import Options, StepCost, build_together

PLAYED = 5
"""Rounds that are played: one to fill the pipeline, two to compare, and up to two that empty it (the warm-up of
interleaved chunks holds more than a round)."""
LONG = PLAYED + 2
"""Rounds from which leaving some out saves more than looking costs."""
SAME_FRAC = 1e-9
"""Differences of a round's time that are rounding."""
PERIODIC = ("1f1b", "zb-h1")
"""Schedules whose order repeats itself from round to round."""


def play_rounds(copies: Sequence[tuple[StepCost, Options]]) -> Timeline:
    """The timeline of a step; of a long one, a timeline that leaves out rounds in its middle, or all of it.

    A schedule repeats itself every round of p micro-batches. Where every task of one round runs the same time after its
    like in the round before it, on all ranks, nothing that comes later depends on anything older, so that all rounds
    until the pipeline empties are like it (a max-plus linear system in its periodic regime: Baccelli et al. 1992,
    Synchronization and Linearity, 3.7). Where that is not so within the rounds played, the whole step is played.
    """
    cost, options = copies[0]
    rounds, left = divmod(options.micro_batches, options.stages)
    if len(copies) > 1 or rounds < LONG or not _periodic(cost, options):
        return play(build_together(copies))
    few = replace(options, micro_batches=PLAYED * options.stages + left)
    played = play(build_together([(cost, few)]))
    skipped = _round(played, options.stages, rounds - PLAYED)
    return play(build_together(copies)) if skipped is None else replace(played, skipped=skipped)


def _periodic(cost: StepCost, options: Options) -> bool:
    """Whether rounds can be alike: no loader, which runs ahead, and nobody in another's way at an hour of its own."""
    crowded = options.contention.shared_network or options.contention.compute_slowdown_frac != 0
    return options.schedule in PERIODIC and cost.load_s <= 0 and not crowded


def _round(timeline: Timeline, stages: int, count: int) -> Skipped | None:
    """The round that repeats; None where the two that are compared differ."""
    marks = [_round_ends(timeline, rank, stages) for rank in range(stages)]
    found: list[float] = []
    for tasks, ends in marks:
        early, late = tasks[ends[0] + 1 : ends[1] + 1], tasks[ends[1] + 1 : ends[2] + 1]
        if not _alike(timeline, early, late, stages):
            return None
        found += (timeline.end_s[late] - timeline.end_s[early]).tolist()
    if max(found) - min(found) > SAME_FRAC * timeline.played_s:
        return None
    edges = [(int(tasks[ends[1]]), int(tasks[ends[2]])) for tasks, ends in marks]
    _, _, seen = walk(timeline, frozenset(number for pair in edges for number in pair))
    busy: dict[tuple[int, str], float] = {}
    for task, seconds in zip(timeline.tasks, (timeline.end_s - timeline.start_s).tolist(), strict=True):
        if 2 * stages <= task.micro_batch < 3 * stages:
            busy[task.rank, task.stream] = busy.get((task.rank, task.stream), 0.0) + seconds
    return Skipped(
        count,
        float(np.mean(found)),
        tuple({cause: seen[b][cause] - seen[a][cause] for cause in seen[b]} for a, b in edges),
        busy,
    )


def _round_ends(timeline: Timeline, rank: int, stages: int) -> tuple[NDArray[np.int64], list[int]]:
    """Compute tasks of a rank, and where among them its first three rounds end: with a backward of the first chunk."""
    numbers = [n for n, task in enumerate(timeline.tasks) if task.rank == rank and task.stream == "compute"]
    last = {
        (timeline.tasks[n].micro_batch): place
        for place, n in enumerate(numbers)
        if timeline.tasks[n].kind in ("backward", "weight") and timeline.tasks[n].chunk == 0
    }
    return np.array(numbers), [last[k * stages - 1] for k in (1, 2, 3)]


def _alike(timeline: Timeline, early: NDArray[np.int64], late: NDArray[np.int64], stages: int) -> bool:
    """Whether a rank does the same in two rounds, one round of micro-batches later."""
    if len(early) != len(late):
        return False
    for one, other in zip(early.tolist(), late.tolist(), strict=True):
        a, b = timeline.tasks[one], timeline.tasks[other]
        if (a.kind, a.chunk, a.duration_s) != (b.kind, b.chunk, b.duration_s):
            return False
        if b.micro_batch - a.micro_batch not in (stages, 0):  # 0: tasks of no micro-batch
            return False
    return True
