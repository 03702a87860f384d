"""The board on the dispatcher's wall: who waits, who runs where, what is free, and the books of the time between.

Every change of a job's state goes through here, so that the books close whoever asks for it: an event (``engine``) or
a decision of the policy (``desk``).
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable
from typing import Any

from simpy.events import EventPriority

from sim.cluster.clock import FIRST, SECOND, Clock, Moment
from sim.cluster.nodes import Ground
from sim.cluster.pace import change_pace, useful_needed_s
from sim.cluster.policy import Policy, View
from sim.cluster.queue import Waiting
from sim.cluster.recovery import NEVER
from sim.cluster.rules import Rules
from sim.cluster.settle import settle
from sim.cluster.state import NOWHERE, JobState
from sim.cluster.usage import Usage
from sim.results.cluster_log import JobRecord, Sink

_row = tuple.__new__
PAST: Any = (math.inf, -1, None)


class TraceError(ValueError):
    """A trace that cannot be played: names the job and what is wrong with it."""


class Board:
    """State of one run."""

    __slots__ = (
        "_cards",
        "_contention",
        "_ends",
        "_grouped",
        "_metered",
        "_queued",
        "_record",
        "_running_key",
        "_segment",
        "_usage",
        "changed",
        "clock",
        "down_gpu_s",
        "ended",
        "faulty",
        "ground",
        "hazarded",
        "idle_gpu_s",
        "idle_waiting_gpu_s",
        "now",
        "policy",
        "rules",
        "running",
        "sink",
        "view",
        "waiting",
        "waiting_job_s",
    )

    def __init__(self, ground: Ground, policy: Policy, rules: Rules, sink: Sink, start_s: float) -> None:
        self.clock = Clock(start_s)
        self.ground, self.policy, self.rules, self.sink = ground, policy, rules, sink
        self._segment, self._record = sink.segment, sink.record
        self.running: dict[int, JobState] = {}
        self._running_key = policy.running_key
        self._cards: list[Any] = []
        self.waiting = Waiting(policy.key)
        self._usage = Usage(policy.key, policy.half_life_s)
        self._metered, self._grouped = policy.metered or policy.grouped, policy.grouped
        self.faulty: Counter[int] = Counter()
        """Nodes with a fault that nobody has noticed yet."""
        self.view = View(
            ground, self.waiting, self.running if self._running_key is None else self._cards, self._usage
        )
        self._queued = 0
        self.now = start_s
        self.down_gpu_s = self.idle_gpu_s = self.idle_waiting_gpu_s = self.waiting_job_s = 0.0
        self.changed = False
        """Whether anything has happened since the policy was last asked."""
        self._contention = rules.contention
        self._ends = FIRST if rules.completions_first else SECOND
        self.ended: Callable[[Any], None]
        self.hazarded: Callable[[Any], None]

    def at(
        self, at_s: float, act: Callable[[Any], None], value: Any, priority: EventPriority = SECOND
    ) -> Moment:
        """An event at a time not before now."""
        return self.clock.at(at_s, act, value, priority)

    def advance(self) -> None:
        """Write the time since the last event into the books."""
        now = self.clock._now
        passed = now - self.now
        if passed:
            ground, waiting = self.ground, self.waiting.size
            if waiting:
                self.idle_waiting_gpu_s += ground.free_gpus * passed
                self.waiting_job_s += waiting * passed
            else:
                self.idle_gpu_s += ground.free_gpus * passed
            if ground.down_gpus:
                self.down_gpu_s += ground.down_gpus * passed
            self.now = now

    def enqueue(self, state: JobState) -> None:
        """A job joins the queue, for the first time or again."""
        state.queued = self._queued
        self._queued += 1
        state.since_s = self.now
        state.waits = True
        self.waiting.add(state)
        if self._grouped:
            entry = state.entry
            self._usage.of(state.group).waiting.add(state)
            state.entry = entry
        self.changed = True

    def pass_by(self, state: JobState) -> None:
        """A job starts without having waited: what joining an empty queue and leaving it again leaves behind."""
        state.queued = self._queued
        self._queued += 1
        state.since_s = self.now

    def dequeue(self, state: JobState) -> None:
        """A job leaves the queue: it starts, or is turned away."""
        state.queued_s += self.now - state.since_s
        state.waits = False
        self.waiting.remove(state)
        if self._grouped:
            self._usage.of(state.group).waiting.remove(state)
        self.changed = True

    def go(self, state: JobState, placed: Any, gpus: int) -> None:
        """Devices are taken: a stretch begins."""
        now = self.now
        rules = self.rules
        state.running = True
        state.placed, state.gpus, state.since_s = placed, gpus, now
        state.recovery = rules.recovery(state.job)
        state.rate = rules.rate(state, gpus, self.ground.speed(placed), placed)
        if not state.rate > 0:
            raise TraceError(
                f"job {state.job.name!r}: its rate at {gpus} devices is {state.rate}: expected more than 0"
            )
        state.stretch += 1
        if state.first_start_s is None:
            state.first_start_s = now
        self._will_end(state)
        contention = self._contention
        if rules.hazard is not None:
            hazard = rules.hazard(state)
            # neighbours may yet put its end off: then a fault beyond it counts too
            if hazard is not None and (now + hazard.after_s < state.end_s or contention is not None):
                self.at(now + hazard.after_s, self.hazarded, (state, state.stretch, hazard.detect_s), FIRST)
        if contention is not None:
            state.alone_rate = state.rate
            contention.join(state)
        if self.faulty and any(node in self.faulty for node, _ in placed.spots):
            state.fault_s, state.ending = now, None  # nobody knows yet, and nothing gets done there
        self.running[state.number] = state
        if self._running_key is not None:
            state.running_entry = (self._running_key(state), state.number, state)
            insort(self._cards, state.running_entry)
        if self._metered:
            self._usage.hold(state, 1, now)
        self.changed = True

    def _will_end(self, state: JobState) -> None:
        """Put its end into the calendar; one that stands still has none."""
        now, recovery = self.now, state.recovery
        needed_s = state.work_left_s / state.rate if state.pace is None else useful_needed_s(state)
        if recovery is not NEVER:
            needed_s = recovery.wall_s(needed_s, restarted=state.restarted)
        end_s = state.since_s + state.owed_s + needed_s
        if self.rules.kill_at_limit:
            limit_s = max(state.limit_end_s, now)
            state.limited = limit_s < end_s
            end_s = min(end_s, limit_s)
        state.end_s = end_s
        if end_s == math.inf:
            state.ending = object()
        else:
            state.ending = self.clock.at(end_s if end_s > now else now, self.ended, state, self._ends)

    def re_pace(self) -> None:
        """Neighbours have come or gone: new rates, and new ends, for those they slow down."""
        if self._contention is None:
            return
        for number, share in self._contention.changed().items():
            state = self.running[number]
            rate = state.alone_rate * share
            if rate == state.rate or state.ending is None or not math.isinf(state.fault_s):
                continue  # nothing gets done after a fault that nobody has noticed
            by_links = self._contention.by_links_frac(number)
            change_pace(state, share, by_links, self.now)
            self._will_end(state)
            if self._running_key is not None:
                del self._cards[bisect_left(self._cards, state.running_entry)]
                state.running_entry = (self._running_key(state), number, state)
                insort(self._cards, state.running_entry)

    def stop(self, state: JobState, why: str) -> None:
        """A stretch ends and the job will be back: its card is made ready for the next one."""
        now = self.now
        ran_s = now - state.since_s
        state.attained_gpu_s += state.gpus * ran_s
        self._leave(state, why)
        state.ran_s = 0.0 if why == "failed" else state.ran_s + ran_s
        if state.job.limit_s is not None:
            state.limit_left_s = state.job.limit_s - state.ran_s
        state.fault_s = math.inf
        state.pace = None
        state.placed = NOWHERE
        state.gpus = state.job.gpus
        state.since_s = now

    def finish(self, state: JobState, why: str) -> None:
        """The last stretch ends: nobody will look at the card again."""
        self._leave(state, why)
        self.write(state, self.now, why)

    def _leave(self, state: JobState, why: str) -> None:
        """Devices are given back, and the books get their line."""
        now = self.now
        self._segment(settle(state, now, why, self.rules))
        self.view.releases += 1
        if self._metered:
            self._usage.hold(state, -1, now)
        del self.running[state.number]
        if self._running_key is not None:
            del self._cards[bisect_left(self._cards, state.running_entry)]
        if self._contention is not None:
            self._contention.leave(state)
        self.ground.release(state.placed, state.job)
        state.running, state.ending = False, None
        self.changed = True

    def write(self, state: JobState, end_s: float | None, outcome: str) -> None:
        """A job is through: its line in the log."""
        job = state.job
        self._record(
            _row(  # JobRecord(...) in half the time
                JobRecord,
                (
                    job.name, state.number, job.gpus, job.submit_s, state.first_start_s, end_s, state.queued_s,
                    state.preemptions, state.failures, outcome, job.user, job.queue,
                ),
            )
        )  # fmt: skip
        state.entry = state.running_entry = (
            PAST  # its cards point back at it: without them it is freed at once
        )
