"""Why devices stood idle while jobs waited: no gang fitted into what was free, or the policy held a fitting one back.

The night is walked through again with the diary in hand: at every change the smallest waiting gang is tried on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sim.cluster.nodes import Ground
from sim.results.cluster_log import ClusterLog
from sim.spec.job import Job

Shape = tuple[str, float, int]
RELEASE, CHANGE, ARRIVE, TAKE = range(4)


class IdleSplit(NamedTuple):
    """Device-seconds idle though jobs wait; the two add up to the books' line."""

    fragments_gpu_s: float
    """No waiting gang could be placed: too few devices free, or in the wrong places."""
    held_back_gpu_s: float
    """At least one could: order, reservations, quotas or priorities kept it waiting."""


def idle_split(log: ClusterLog, ground: Ground, jobs: Sequence[Job]) -> IdleSplit:
    """Split by replaying ``log`` on an empty ``ground``; ``jobs`` in order of submission.

    Exact where a smaller gang of the same devices fits whenever a larger one does (host CPUs and memory apart).
    """
    waiting: dict[Shape, dict[int, Job]] = {}
    fragments = held_back = 0.0
    now = log.start_s
    for at_s, _, act, number in sorted(_changes(log, ground, jobs, waiting), key=lambda event: event[:2]):
        if at_s > now:
            if waiting and ground.free_gpus:
                idle = ground.free_gpus * (at_s - now)
                fits = any(_fits(ground, job, shape[2]) for shape, job in _smallest(waiting))
                fragments, held_back = (
                    (fragments, held_back + idle) if fits else (fragments + idle, held_back)
                )
            now = at_s
        act(number)
    return IdleSplit(fragments, held_back)


def _changes(
    log: ClusterLog, ground: Ground, jobs: Sequence[Job], waiting: dict[Shape, dict[int, Job]]
) -> Iterator[tuple[float, int, Callable[[int], object], int]]:
    """(time, order within an instant, what happens, to which number)."""
    segments, downtimes = log.segments, log.downtimes

    def take(place: int) -> None:
        ground.take(segments[place].placed, jobs[segments[place].number])

    def release(place: int) -> None:
        ground.release(segments[place].placed, jobs[segments[place].number])

    def join(number: int) -> None:
        waiting.setdefault(_shape(jobs[number]), {})[number] = jobs[number]

    def leave(number: int) -> None:
        shape = _shape(jobs[number])
        del waiting[shape][number]
        if not waiting[shape]:
            del waiting[shape]

    end_s = log.start_s + log.span_s
    free_since = {r.number: r.submit_s for r in log.records if r.outcome != "refused"}
    ended = {r.number for r in log.records if r.outcome != "waiting"}
    for place in sorted(range(len(segments)), key=lambda i: segments[i].start_s):
        row = segments[place]
        since = free_since[row.number]
        if row.start_s > since:
            yield since, ARRIVE, join, row.number
            yield row.start_s, TAKE, leave, row.number
        free_since[row.number] = row.end_s
        if row.end_s > row.start_s:
            yield row.start_s, TAKE, take, place
            yield row.end_s, RELEASE, release, place
    for number, since in free_since.items():
        if number not in ended and end_s > since:
            yield since, ARRIVE, join, number
            yield end_s, TAKE, leave, number
    for away in downtimes:
        yield away.start_s, CHANGE, ground.close, away.node
        yield away.end_s, CHANGE, ground.open, away.node
    yield end_s, TAKE, lambda _: None, 0


def _shape(job: Job) -> Shape:
    return job.accelerator, job.gpu_share_frac, job.gpus if job.min_gpus is None else job.min_gpus


def _smallest(waiting: dict[Shape, dict[int, Job]]) -> Iterator[tuple[Shape, Job]]:
    """The smallest gang of each kind of device and share."""
    seen: set[tuple[str, float]] = set()
    for shape in sorted(waiting):
        if shape[:2] not in seen:
            seen.add(shape[:2])
            yield shape, next(iter(waiting[shape].values()))


def _fits(ground: Ground, job: Job, gpus: int) -> bool:
    placed = ground.place(job, gpus)
    if placed is not None:
        ground.release(placed, job)
    return placed is not None
