"""Elastic gangs: jobs that can run on more or fewer devices grow when it is quiet and shrink when others wait.

A dinner table with elbow room: everybody gets a chair first, and what room is left goes where it helps most. After
Pollux (Qiao et al., OSDI 2021: maximise the power mean, p = -1, of speed-ups) and Sia (Jayaram Subramanya et al., SOSP
2023: with restarts counted in); goodput here is speed alone, with one stated curve for all jobs, because statistical
efficiency is not in a job's record.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from sim.cluster.policy import Decisions, Policy, Resize, Start, View, Wake
from sim.cluster.state import JobState
from sim.results.cluster_log import Placed


def scaled_rate(exponent: float, asked: int, gpus: int) -> float:
    """Speed on ``gpus`` over speed on those asked for: (gpus / asked)^exponent, a power law (assumed; 1 = linear; 0.9
    loses 7 % at each doubling, as data-parallel runs with a fixed global batch do or worse)."""
    return 1.0 if gpus == asked or not asked or not gpus else float((gpus / asked) ** exponent)


@dataclass(frozen=True, slots=True)
class ScaledRate:
    """``Rules.rate`` with the same curve, so that what the policy believes is what happens."""

    exponent: float

    def __call__(self, state: JobState, gpus: int, speed: float, placed: Placed) -> float:
        """Useful seconds a second."""
        del placed
        return speed * scaled_rate(self.exponent, state.job.gpus, gpus)


def least(state: JobState) -> int:
    """Fewest devices that a job can use."""
    job = state.job
    return job.gpus if job.min_gpus is None else min(job.min_gpus, job.gpus)


def most(state: JobState) -> int:
    """Most devices that a job can use."""
    job = state.job
    return job.gpus if job.max_gpus is None else max(job.max_gpus, job.gpus)


def share_out(states: Sequence[JobState], devices: float, exponent: float) -> dict[int, int]:
    """Devices by job number: the least for each in order while it fits, then one by one where the power mean (p = -1)
    of speed-ups gains most; greedy is exact, for the sum of -1 / speed-up is concave in each job's devices."""
    given: dict[int, int] = {}
    left = devices
    for state in states:
        if least(state) <= left:
            given[state.number] = least(state)
            left -= least(state)
    by_number = {state.number: state for state in states}

    def gain(number: int) -> float:
        state, now = by_number[number], given[number]
        asked = state.job.gpus
        if now >= most(state) or not now:
            return 0.0
        return 1 / scaled_rate(exponent, asked, now) - 1 / scaled_rate(exponent, asked, now + 1)

    heap = [(-gain(number), number) for number in given]
    heapq.heapify(heap)
    while left >= 1 and heap:
        minus, number = heapq.heappop(heap)
        if not minus:
            break
        given[number] += 1
        left -= 1
        heapq.heappush(heap, (-gain(number), number))
    return given


@dataclass(frozen=True)
class Elastic(Policy):
    """Every ``round_s``, and when a job waits that the last sharing did not know: everybody's least first (order of
    submission), the rest by ``share_out``. Gangs that run and still may are never sent away, only resized."""

    exponent: float = 0.9
    round_s: float = 300.0
    """Between two sharings of the room that is left (assumed; Pollux and Sia take 60 s)."""
    name: str = "elastic"
    idle_passes: bool = True

    def decide(self, view: View) -> Decisions:
        """Shrink, start, grow."""
        memory, now = view.memory, view.now_s
        running = sorted(view.running, key=lambda state: state.number)
        waiting = list(view.waiting)
        seen = (len(running), view.releases, waiting[-1].number if waiting else -1)
        due_s = memory.get("due_s", now)
        if now < due_s and (memory.get("seen") == seen or not waiting):
            yield Wake(due_s)
            return
        wanted = share_out([*running, *waiting], view.up_gpus, self.exponent)
        for state in running:
            goal = wanted.get(state.number, state.gpus)
            if goal < state.gpus:
                yield Resize(state, goal)
        for state in waiting:
            goal = wanted.get(state.number, 0)
            if (goal or not state.gpus) and not (yield Start(state, goal)) and goal > least(state):
                yield Start(state, least(state))
        for state in running:
            goal = wanted.get(state.number, state.gpus)
            if state.running and goal > state.gpus:
                yield Resize(state, goal)
        memory["seen"] = (len(list(view.running)), view.releases, waiting[-1].number if waiting else -1)
        memory["due_s"] = now + self.round_s
        if any(most(state) > least(state) for state in view.running):
            yield Wake(now + self.round_s)
