"""Preemptive orders: everybody is lined up again at each pass, and the first who fit have the devices.

Waiting and running jobs stand in one line; walking down, each that still fits is taken, one that does not is passed
over;
running jobs that were not taken are preempted, waiting ones that were taken start.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence, Set
from dataclasses import dataclass
from typing import Any

from sim.cluster.policy import Decision, Decisions, Policy, Preempt, Start, View, Wake
from sim.cluster.state import JobState

Rank = Callable[[JobState], Any]
Ranked = tuple[Any, JobState]


@dataclass(frozen=True, slots=True)
class Choice:
    """Who is taken and who has to go."""

    starts: list[JobState]
    leaves: list[JobState]


def take_in_order(
    view: View, running: Sequence[Ranked], rank: Rank, passed: Set[JobState] = frozenset()
) -> Choice:
    """Walk down both lines together, by device counts; ``running`` must be sorted, as the queue is by its key, and
    ``rank``
    says where a waiting job stands among the running ones.

    Waiting jobs in ``passed`` are passed over.
    """
    quota = view.up_gpus
    movable: list[Ranked] = []
    for ranked in running:
        if ranked[1].job.preemptible:
            movable.append(ranked)
        else:
            quota -= ranked[1].gpus

    def behind(state: JobState | None) -> JobState | None:
        found = view.waiting.after(state, quota)
        while found is not None and found in passed:
            found = view.waiting.after(found, quota)
        return found

    starts: list[JobState] = []
    leaves: list[JobState] = []
    ahead = behind(None)
    rank_ahead = None if ahead is None else rank(ahead)
    for place, (mine, state) in enumerate(movable):
        while ahead is not None and rank_ahead < mine:
            starts.append(ahead)
            quota -= ahead.gpus
            ahead = behind(ahead)
            rank_ahead = None if ahead is None else rank(ahead)
        if state.gpus <= quota:
            quota -= state.gpus
            if ahead is not None and ahead.gpus > quota:
                ahead = behind(ahead)
                rank_ahead = None if ahead is None else rank(ahead)
        else:
            leaves.append(state)
            if quota <= 0:
                leaves.extend(state for _, state in movable[place + 1 :])
                break
    while ahead is not None:
        starts.append(ahead)
        quota -= ahead.gpus
        ahead = behind(ahead)
    return Choice(starts, leaves)


def placeless(view: View, choice: Choice) -> list[JobState]:
    """Who of the chosen would find no place if all who have to go were gone: tried on the nodes and undone."""
    ground = view.ground
    for state in choice.leaves:
        ground.release(state.placed, state.job)
    tried = [(state, ground.place(state.job, state.job.gpus)) for state in choice.starts]
    for state, placed in tried:
        if placed is not None:
            ground.release(placed, state.job)
    for state in choice.leaves:
        ground.take(state.placed, state.job)
    return [state for state, placed in tried if placed is None]


def room_for_all(view: View) -> bool:
    """Whether the devices that are free suffice for everybody who waits: then nobody has to be lined up."""
    free = view.free_gpus
    for state in view.waiting:
        free -= state.gpus
        if free < 0:
            return False
    return True


def start_all(view: View) -> Generator[Decision, bool, None]:
    """Everybody who waits starts, in order, where the free devices form a place; twice, as ``serve_in_order`` tries who
    found none once more when the others have theirs."""
    for _ in range(2):
        for state in view.waiting:
            yield Start(state)


TRIES = 3
"""Choices looked at in one pass before nobody is preempted in it (assumed; one or two are the rule)."""


def serve_in_order(view: View, running: Sequence[Ranked], rank: Rank) -> Generator[Decision, bool, None]:
    """One pass: nobody is preempted for a gang that would find no place; such a gang is passed over."""
    passed: set[JobState] = set()
    choice = take_in_order(view, running, rank)
    for _ in range(TRIES):
        missed = placeless(view, choice) if choice.leaves and choice.starts else []
        if not missed:
            break
        passed.update(missed)
        choice = take_in_order(view, running, rank, passed)
    else:
        choice = Choice([], [])
    for state in choice.leaves if choice.starts else ():
        yield Preempt(state)
    for state in choice.starts:
        yield Start(state)
    if not choice.leaves or not choice.starts:  # what still fits without taking anything from anybody
        after = view.waiting.after(None, view.free_gpus)
        while after is not None:
            yield Start(after)
            after = view.waiting.after(after, view.free_gpus)


@dataclass(frozen=True)
class Srtf(Policy):
    """Shortest remaining time first (Schrage and Miller, Operations Research 14, 1966; gangs: one that does not fit is
    passed over)."""

    name: str = "srtf"
    clairvoyant: bool = True

    def key(self, state: JobState) -> Any:
        """Time it still needs."""
        return state.remaining_s(0.0)

    @property
    def running_key(self) -> Rank:
        """Of running jobs, the first to end has the least left."""
        return lambda state: state.end_s

    def decide(self, view: View) -> Decisions:
        """Least remaining time first."""
        now = view.now_s
        head = view.waiting.first
        if head is not None and room_for_all(view):
            yield from start_all(view)
            return
        running = [((state.end_s - now, state.number), state) for state in view.running]
        if head is None or (view.free_gpus <= 0 and running and head.remaining_s(now) >= running[-1][0][0]):
            return
        yield from serve_in_order(view, running, lambda state: (state.remaining_s(now), state.number))


@dataclass(frozen=True)
class PriorityPreempt(Policy):
    """Largest priority first; a job of larger priority takes the devices of smaller ones (Slurm:
    slurm.schedmd.com/preempt.html,
    by partition or QOS; Kubernetes: pod priority)."""

    name: str = "priority-preempt"

    def key(self, state: JobState) -> Any:
        """Larger goes first."""
        return -state.job.priority

    @property
    def running_key(self) -> Rank:
        """The same order."""
        return lambda state: (-state.job.priority, state.number)

    def decide(self, view: View) -> Decisions:
        """Largest priority first."""
        if room_for_all(view):
            yield from start_all(view)
            return
        running = [((-state.job.priority, state.number), state) for state in view.running]
        yield from serve_in_order(view, running, lambda state: (-state.job.priority, state.number))


@dataclass(frozen=True)
class Tiresias(Policy):
    """Least attained service in two or more levels: by device-seconds held so far against thresholds, and by order of
    submission within a level (Gu et al., NSDI 2019, discretised two-dimensional LAS)."""

    thresholds_gpu_s: tuple[float, ...] = (18_000.0,)
    """The one threshold of Lucid's and Helios' runs (assumed to suit; Tiresias asks for tuning)."""
    name: str = "tiresias"

    def level(self, attained_gpu_s: float) -> int:
        """Level of a job, the number of thresholds it has passed; 0 is served first."""
        return bisect_left(self.thresholds_gpu_s, attained_gpu_s)

    def key(self, state: JobState) -> Any:
        """Level, then submission."""
        return (self.level(state.attained_gpu_s), state.number)

    def decide(self, view: View) -> Decisions:
        """Lowest level first; wakes when a running job outgrows its level."""
        now, thresholds = view.now_s, self.thresholds_gpu_s
        head = view.waiting.first
        if head is None:
            return
        if room_for_all(view):
            yield from start_all(view)
        else:
            running: list[Ranked] = []
            for state in view.running:
                attained = state.attained_gpu_s + state.gpus * (now - state.since_s)
                running.append(((bisect_left(thresholds, attained), state.number), state))
            running.sort()
            if view.free_gpus > 0 or not running or head.entry[0] < running[-1][0]:
                yield from serve_in_order(view, running, lambda state: state.entry[0])
        if view.waiting.size:
            yield Wake(self._next_outgrown_s(view))

    def _next_outgrown_s(self, view: View) -> float:
        """When the next running job passes a threshold, and a hair later: at the threshold it is still on its level."""
        now, thresholds = view.now_s, self.thresholds_gpu_s
        least_s = float("inf")
        for state in view.running:
            attained = state.attained_gpu_s + state.gpus * (now - state.since_s)
            level = bisect_left(thresholds, attained)
            if level < len(thresholds) and state.gpus:
                left_s = (thresholds[level] - attained) / state.gpus
                if left_s < least_s:
                    least_s = left_s
        return (now + least_s) * (1 + 1e-12) + 1e-6
