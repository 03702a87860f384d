"""Other schedulers' habits, as policies on the public interface: what they do beyond the rule they are named after.

Like interpreters: each speaks one program's dialect, so that the engine need not. Lucid (Hu et al., ASPLOS 2023) and
Helios (SC 2021) step through time second by second; pyss (2007) handles one event at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from sim.cluster.policies.easy import Easy
from sim.cluster.policies.preemptive import Choice, take_in_order
from sim.cluster.policy import Decision, Decisions, Policy, Preempt, Start, View, Wake
from sim.cluster.state import JobState


def _swap(line: Choice) -> Generator[Decision, bool, list[JobState]]:
    """Preempt first, then place in order; answers who found no place though the count allowed it."""
    for state in line.leaves:
        yield Preempt(state)
    placed: set[JobState] = set()
    for state in line.starts:
        if (yield Start(state)):
            placed.add(state)
    return [state for state in line.starts if state not in placed]


@dataclass(frozen=True)
class TickSrtf(Policy):
    """Shortest remaining time as Lucid and Helios run it, every second.

    A preempted job goes to the end of the list; one that is taken and finds no place still uses up its count.
    """

    name: str = "srtf"
    clairvoyant: bool = True

    def key(self, state: JobState) -> Any:
        """Remaining time, then place in the list of waiting jobs."""
        return (state.remaining_s(0.0), state.queued)

    @property
    def running_key(self) -> Callable[[JobState], Any]:
        """The first to end has the least left; ties in order of starting."""
        return lambda state: (state.end_s, state.since_s, state.queued)

    def decide(self, view: View) -> Decisions:
        """One tick; the next that can differ is when a running job overtakes one that found no place."""
        now = view.now_s
        running = [((state.end_s - now, True), state) for state in view.running]
        line = take_in_order(view, running, lambda state: (state.remaining_s(now), False))
        missed = yield from _swap(line)
        if missed:
            yield Wake(self._overtaken_s(view, missed))

    def _overtaken_s(self, view: View, missed: list[JobState]) -> float:
        behind_s = [
            state.end_s - view.now_s - waiting.remaining_s(0.0)
            for state in view.running
            for waiting in missed
        ]
        return view.now_s + 1 + min((gap for gap in behind_s if gap >= 0), default=math.inf)


@dataclass(frozen=True)
class TickTiresias(Policy):
    """Two levels of attained service as Lucid runs them: only at whole intervals."""

    interval_s: float = 60.0
    threshold_gpu_s: float = 18_000.0
    name: str = "tiresias"

    def key(self, state: JobState) -> Any:
        """Level, submission, place in the list of waiting jobs."""
        return (state.attained_gpu_s > self.threshold_gpu_s, state.submit_s, state.queued)

    def decide(self, view: View) -> Decisions:
        """Nothing between two intervals."""
        now = view.now_s
        past_s = now % self.interval_s
        if not past_s:
            running = [
                ((state.attained_until(now) > self.threshold_gpu_s, state.submit_s, 0), state)
                for state in view.running
            ]
            running.sort(key=lambda ranked: ranked[0])
            line = take_in_order(view, running, lambda state: (*state.entry[0][:2], 1))
            yield from _swap(line)
        yield Wake(now - past_s + self.interval_s)


@dataclass(frozen=True)
class EventEasy(Easy):
    """EASY as pyss runs it, a pass after every single event: a job whose limit expires in this second counts as gone.

    Who may start on devices that are given back later in the same second is due, and starts as soon as they are.
    """

    def decide(self, view: View) -> Decisions:
        """Those who are due, then heads, then backfill."""
        now = view.now_s
        due: dict[JobState, None] = {}
        for state in view.memory.get("due", ()):
            if not (yield Start(state)):
                due[state] = None
        view.memory["due"] = due
        busy = [(state.limit_end_s, state.gpus) for state in view.running if state.limit_end_s > now]
        busy += [(now + state.limit_left_s, state.gpus) for state in due]
        free = view.total_gpus - sum(gpus for _, gpus in busy)
        line = [state for state in view.waiting if state not in due]
        behind: list[JobState] = []
        for place, head in enumerate(line):
            if head.gpus > free:
                behind = line[place + 1 :]
                break
            free -= head.gpus
            busy.append((now + head.limit_left_s, head.gpus))
            if not (yield Start(head)):
                due[head] = None
        else:
            return
        shadow_s, extra = _promise(free, head.gpus, sorted(busy))
        slack_s = shadow_s - now
        behind = [
            state
            for state in behind
            if state.gpus <= free and (now + state.limit_left_s <= shadow_s or state.gpus <= extra)
        ]
        for state in self.in_order(behind, int(free), slack_s, int(extra)):
            short = now + state.limit_left_s <= shadow_s
            if state.gpus <= free and (short or state.gpus <= extra):
                free -= state.gpus
                extra -= 0 if short else state.gpus
                if not (yield Start(state)):
                    due[state] = None


def _promise(free: float, need: int, busy: list[tuple[float, int]]) -> tuple[float, float]:
    """When so many devices are free by limits, and how many are left over then."""
    shadow_s = math.inf
    for end_s, gpus in busy:
        if end_s > shadow_s:
            break
        free += gpus
        if free >= need:
            shadow_s = end_s
    return shadow_s, free - need
