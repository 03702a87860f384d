"""A long step without its middle: a few rounds of micro-batches are played, the rest repeat them.

Like a canal lock at a busy hour: once boats queue on both sides, every filling is like the last, and nobody needs to
watch all of them to know when the last boat is through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sim.results.timeline import Skipped, Task, Timeline, walk
from sim.training.engine import play
from sim.training.program import build_together
from sim.training.program_parts import COMPUTE, Options, StepCost
from sim.training.schedules import interleaving_group

SETTLED = 2
"""Rounds after which the two that are compared begin: by then most pipelines of unlike stages run steadily."""
PLAYED = SETTLED + 4
"""Rounds that are played: those, the two that are compared, and two that empty the pipeline (the warm-up of interleaved
chunks holds more than a round)."""
LONG = PLAYED + 2
"""Rounds from which leaving some out saves more than looking costs."""
SAME_FRAC = 1e-9
"""Differences of a round's time that are rounding, as a share of what was played."""


def play_rounds(copies: Sequence[tuple[StepCost, Options]]) -> Timeline:
    """The timeline of a step; of a long one, a timeline that leaves out rounds in its middle where these are all alike.

    A schedule repeats itself every round of micro-batches (:func:`round_of`). Where every task of one round runs the
    same time after its like in the round before it, on all streams of all ranks, nothing that comes later depends on
    anything older, so that all rounds until the pipeline empties are like it (a max-plus linear system in its periodic
    regime: Baccelli et al. 1992, Synchronization and Linearity, 3.7). Where that is not so the whole step is played.
    """
    _, options = copies[0]
    size = round_of(options.stages, options.virtual_stages, options.micro_batches)
    rounds, left = divmod(options.micro_batches, size)
    if len(copies) > 1 or rounds < LONG or not _repeats(*copies[0]):
        return play(build_together(copies))
    few = replace(options, micro_batches=PLAYED * size + left, group=size)
    played = play(build_together([(copies[0][0], few)]))
    skipped = _repeated(played, size, rounds - PLAYED, options.stages)
    return play(build_together(copies)) if skipped is None else replace(played, skipped=skipped)


def round_of(stages: int, virtual_stages: int, micro_batches: int) -> int:
    """Micro-batches after which a schedule repeats itself: as many as stages, or as go through a chunk together."""
    chunks = virtual_stages > 1 and micro_batches >= stages
    return interleaving_group(stages, micro_batches) if chunks else stages


def _repeats(cost: StepCost, options: Options) -> bool:
    """Whether rounds can be alike: no loader, which runs ahead; nobody in another's way; an order that repeats itself
    (a split backward takes long to settle, two directions meet in the middle).
    """
    crowded = options.contention.shared_network or options.contention.compute_slowdown_frac != 0
    return options.schedule == "1f1b" and cost.load_s <= 0 and not crowded


def _repeated(timeline: Timeline, size: int, count: int, stages: int) -> Skipped | None:
    """The round of ``size`` micro-batches that repeats; None where the two that are compared differ."""
    begin_s, middle_s, end_s = (_cut_s(timeline, k * size - 1) for k in range(SETTLED, SETTLED + 3))
    early, late = _by_stream(timeline, begin_s, middle_s), _by_stream(timeline, middle_s, end_s)
    if early.keys() != late.keys():
        return None
    ends, shifts_s = timeline.end_s.tolist(), []
    for stream, before in early.items():
        after = late[stream]
        if not _alike(timeline.tasks, before, after, size):
            return None
        shifts_s += [ends[b] - ends[a] for a, b in zip(before, after, strict=True)]
    if max(shifts_s) - min(shifts_s) > SAME_FRAC * timeline.played_s:
        return None
    edges = [(early[rank, COMPUTE][-1], late[rank, COMPUTE][-1]) for rank in range(stages)]
    return Skipped(
        count,
        float(np.mean(shifts_s)),
        tuple(walk(timeline, edges)[0]),
        {stream: sum(timeline.tasks[n].duration_s for n in numbers) for stream, numbers in late.items()},
    )


def _cut_s(timeline: Timeline, micro_batch: int) -> float:
    """A moment inside the first rank's last backward of a micro-batch; where in it is no simple share of its length, as
    others end their tasks at such moments."""
    for number in range(len(timeline.tasks) - 1, -1, -1):
        rank, _, kind, mine, chunk, seconds, _ = timeline.tasks[number]
        if mine == micro_batch and rank == 0 and chunk == 0 and kind == "backward":
            return float(timeline.start_s[number]) + 0.3819 * seconds
    raise ValueError(f"no backward of micro-batch {micro_batch}")


def _by_stream(timeline: Timeline, begin_s: float, end_s: float) -> dict[tuple[int, str], list[int]]:
    """Numbers of the tasks that end within a stretch of time, by (rank, stream)."""
    inside = (timeline.end_s > begin_s) & (timeline.end_s <= end_s)
    found: dict[tuple[int, str], list[int]] = {}
    for number in np.flatnonzero(inside).tolist():
        task = timeline.tasks[number]
        found.setdefault((task[0], task[1]), []).append(number)
    return found


def _alike(tasks: Sequence[Task], before: Sequence[int], after: Sequence[int], size: int) -> bool:
    """Whether a stream does the same in two rounds, one round of micro-batches later."""
    if len(before) != len(after):
        return False
    for one, other in zip(before, after, strict=True):
        a, b = tasks[one], tasks[other]
        if a[2] != b[2] or a[3] + size != b[3] or a[4] != b[4] or a[5] != b[5]:
            return False
    return True
