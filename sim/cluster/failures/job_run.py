"""One large job through months of failures, event by event.

Like a ship's log: under way, struck, drifting until somebody notices, waiting for a part, starting again. Only strikes
and returning nodes are events; checkpoints are closed forms inside (:class:`Recovery`), so months cost milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import simpy

from sim.cluster.failures.crew import Crew
from sim.cluster.failures.job_books import JobBooks
from sim.cluster.failures.long_job import JobRun, LongJob
from sim.cluster.failures.stream import Slowdown
from sim.cluster.outage import Outage

PLANNED = ("maintenance", "grow", "slow")
"""Stops known before: the job writes a checkpoint first."""
_RUN, _RESTART, _UNDETECTED, _WAIT = range(4)


def run_job(
    job: LongJob,
    outages: Iterable[Outage],
    span_s: float,
    *,
    slowdowns: Iterable[Slowdown] = (),
    requeue_s: Iterator[float] | None = None,
) -> JobRun:
    """Play a job until its work is done or ``span_s`` is over.

    Args:
        outages: sorted by time, over nodes ``0 .. job.owned - 1``; without nodes = the job itself fails. Those that hit
            a node at repair, a cold spare or a waiting job change nothing.
        slowdowns: sorted by onset; the job runs at the speed of its slowest node until that one is found.
        requeue_s: wait in a queue after each failure, drawn in order; none = it keeps its place.

    Raises:
        ValueError: the span is not positive, or the work has no end and neither has the span.
    """
    if not span_s > 0 or (math.isinf(span_s) and math.isinf(job.work_s)):
        raise ValueError(f"span {span_s:g} s: expected a positive time, finite where the work has no end")
    return _Voyage(job, iter(outages), iter(slowdowns), requeue_s).sail(span_s)


class _Voyage:
    """The state of one run."""

    def __init__(
        self,
        job: LongJob,
        outages: Iterator[Outage],
        slowdowns: Iterator[Slowdown],
        requeue: Iterator[float] | None,
    ) -> None:
        self.job, self.requeue = job, requeue
        self.env = simpy.Environment()
        self.crew = Crew(job.nodes, job.spares)
        self.books = JobBooks(job.recovery, job.work_s)
        self.struck: Counter[str] = Counter()
        self.state, self.since = _RUN, 0.0
        self.pending: list[Outage] = []  # outages not yet handled by the job, the first one in charge
        self.slow: dict[int, Slowdown] = {}
        self.returned: simpy.Event | None = None
        self.done = self.called = False
        self.speed_area = self.speed_since = 0.0  # of the stretch under way: integral of its speed
        self.main = self.env.process(self._sail())
        self.env.process(self._weather(outages))
        self.env.process(self._drag(slowdowns))

    def sail(self, span_s: float) -> JobRun:
        if math.isinf(span_s):
            self.env.run(until=self.main)
        else:
            self.env.run(until=self.main | self.env.timeout(span_s))
        span = float(self.env.now)
        if not self.done:
            self._close_unfinished()
        struck = dict(sorted(self.struck.items()))
        return JobRun(span, dict(self.books.parts_s), self.done, struck, self.books.speed_frac)

    # --- what happens to it ---

    def _weather(self, outages: Iterator[Outage]) -> Generator[Any, None, None]:
        for outage in outages:
            yield self.env.timeout(max(outage.at_s - self.env.now, 0.0))
            self._strike(outage)

    def _strike(self, outage: Outage) -> None:
        lost = tuple(node for node in outage.nodes if node in self.crew.active)
        planned = outage.cause in PLANNED
        for node in self.crew.lose_spares(outage.nodes, cold_too=planned):
            self._send_to_repair(node, outage.detect_s + outage.down_s)
        if self.done or (outage.nodes and not lost):
            return
        if self.state == _WAIT or (self.state == _RESTART and not self.job.fails_while_restarting):
            if planned:
                self._lose_nodes(outage._replace(nodes=lost))
            return
        if outage.cause == "silent" and not self._computes():
            return
        self.pending.append(outage._replace(nodes=lost))
        if self.state != _UNDETECTED:
            self._call()

    def _call(self) -> None:
        """Rouse the job from what it does, once however many call in the same moment."""
        if not self.called:
            self.called = True
            self.main.interrupt()

    def _computes(self) -> bool:
        """Whether there is anything now that a silent error could spoil."""
        if not self._under_way() or not self.job.recovery.verify_s:
            return self._under_way()
        ran = self.env.now - self.since
        return self.job.recovery.undetected_s(ran, phase_s=self.books.phase_s) is not None

    def _under_way(self) -> bool:
        return self.state == _RUN and not self.pending and not self.done

    def _drag(self, slowdowns: Iterator[Slowdown]) -> Generator[Any, None, None]:
        for slow in slowdowns:
            yield self.env.timeout(max(slow.at_s - self.env.now, 0.0))
            if slow.node in self.crew.active and slow.node not in self.slow:
                self._note_speed()
                self.slow[slow.node] = slow
                found = self.env.timeout(max(slow.until_s - self.env.now, 0.0), slow)
                found.callbacks.append(lambda event: self._found_slow(event.value))
                self._turn()

    def _found_slow(self, slow: Slowdown) -> None:
        node = slow.node
        if self.slow.get(node) is slow:  # else it failed and left before
            self._note_speed()
            if self._under_way():
                # swapped in a planned stop, and a spare from then on
                self.pending.append(Outage(self.env.now, (node,), "slow", 0.0, 0.0))
                self._call()
            else:
                del self.slow[node]

    def _turn(self) -> None:
        """Speed or size has changed: a stretch that will end must be timed again."""
        if self._under_way() and math.isfinite(self.books.work_left_s):
            self._call()

    # --- what it does ---

    def _sail(self) -> Generator[Any, None, None]:
        while True:
            try:
                yield from self._stretch()
                break
            except simpy.Interrupt:
                pass
            while self.pending:
                from_memory = yield from self._struck()
                yield from self._restart(from_memory)
        self.done = True

    def _stretch(self) -> Generator[Any, None, None]:
        self._enter(_RUN)
        self.speed_area, self.speed_since = 0.0, self.env.now
        while True:
            wall = self._wall_left_s()
            try:
                yield self.env.timeout(wall) if math.isfinite(wall) else self.env.event()
                self._note_speed()
                ran = self.env.now - self.since
                self.books.stretch(ran, self._mean_speed(ran), "all", last=True)
                return
            except simpy.Interrupt:
                self.called = False
                if self.pending:
                    raise

    def _wall_left_s(self) -> float:
        """Time until the work is done if the speed stays as it is."""
        if math.isinf(self.books.work_left_s):
            return math.inf
        ran = self.env.now - self.since
        useful = self.job.recovery.progress(ran, phase_s=self.books.phase_s).useful_s
        mean = self._mean_speed(ran)
        needed = useful + max(self.books.work_left_s - mean * useful, 0.0) / self._speed()
        return max(self.job.recovery.wall_s(needed, phase_s=self.books.phase_s) - ran, 0.0)

    def _struck(self) -> Generator[Any, None, bool]:
        """From a strike until the job may start again; says whether it restores from memory."""
        first, recovery, running = self.pending[0], self.job.recovery, self.state == _RUN
        ran = self.env.now - self.since
        checked = first.cause == "silent" and recovery.verify_s > 0
        hidden = recovery.undetected_s(ran, phase_s=self.books.phase_s) if checked else None
        from_memory = recovery.memory is not None and len(first.nodes) <= recovery.memory.node_losses
        if running:
            keep = "all" if first.cause in PLANNED else "memory" if from_memory else "durable"
            self._note_speed()
            self.books.stretch(ran, self._mean_speed(ran), keep)
        else:
            self.books.parts_s["restart"] += ran
        if first.cause in PLANNED and running and math.isfinite(recovery.interval_s):
            yield from self._spend(_WAIT, recovery.durable_s, "checkpoint")
        yield from self._spend(_UNDETECTED, first.detect_s if hidden is None else hidden, "undetected")
        struck, self.pending = self.pending, []
        for outage in struck:
            self.struck[outage.cause] += 1
            self._lose_nodes(outage)
        losses = sum(len(outage.nodes) for outage in struck)
        from_memory = recovery.memory is not None and losses <= recovery.memory.node_losses
        if not from_memory:
            self.books.lose_fragile()
        if not first.nodes:
            yield from self._spend(_WAIT, first.down_s, "waiting")
        return from_memory

    def _lose_nodes(self, outage: Outage) -> None:
        for node in outage.nodes:
            self.crew.active.discard(node)
            self.slow.pop(node, None)
            self._send_to_repair(node, outage.down_s)

    def _restart(self, from_memory: bool) -> Generator[Any, None, None]:
        """Find nodes, wait for them or shrink, queue again, load and warm up."""
        recovery = self.job.recovery
        load = recovery.memory.restart_s if from_memory and recovery.memory else recovery.restart_s
        floor = self.job.nodes if self.job.min_nodes is None else self.job.min_nodes
        if self.requeue is not None:
            yield from self._spend(_WAIT, next(self.requeue), "waiting")
        while True:
            swap = self.crew.fill()
            while len(self.crew.active) < floor:
                self.returned = self.env.event()
                self._enter(_WAIT)
                yield self.returned
                self.books.parts_s["waiting"] += self.env.now - self.since
                swap = max(swap, self.crew.fill())
            self.returned = None
            try:
                yield from self._spend(_RESTART, swap + load, "restart")
            except simpy.Interrupt:
                self.called = False
                return  # struck again: the strike books the time that passed
            if len(self.crew.active) == self.job.nodes or not (self.crew.hot or self.crew.cold):
                return  # else nodes came back meanwhile: a job that shrank takes them at once

    def _spend(self, state: int, seconds: float, part: str) -> Generator[Any, None, None]:
        self._enter(state)
        if seconds > 0:
            yield self.env.timeout(seconds)
        self.books.parts_s[part] += self.env.now - self.since
        self.since = self.env.now

    def _enter(self, state: int) -> None:
        self.state, self.since = state, self.env.now

    def _send_to_repair(self, node: int, down_s: float) -> None:
        if down_s <= 0:
            self._back(node)
        else:
            back = self.env.timeout(down_s, node)
            back.callbacks.append(lambda event: self._back(event.value))

    def _back(self, node: int) -> None:
        """A node is mended: it becomes a spare, or joins a job that lacks it."""
        self.crew.put_back(node, wanted=self.returned is not None)
        if self.returned is not None:
            if not self.returned.triggered:
                self.returned.succeed()
        elif len(self.crew.active) < self.job.nodes and self._under_way():
            # a job that shrank grows again: a planned stop
            self.pending.append(Outage(self.env.now, (), "grow", 0.0, 0.0))
            self._call()

    # --- its books ---

    def _speed(self) -> float:
        return (
            len(self.crew.active)
            / self.job.nodes
            * min((slow.speed_frac for slow in self.slow.values()), default=1.0)
        )

    def _note_speed(self) -> None:
        if self.state == _RUN:
            self.speed_area += (self.env.now - max(self.speed_since, self.since)) * self._speed()
            self.speed_since = self.env.now

    def _mean_speed(self, ran_s: float) -> float:
        return self.speed_area / ran_s if ran_s > 0 else 1.0

    def _close_unfinished(self) -> None:
        """The span is over: what was done counts as done, though not all of it is saved."""
        spent = self.env.now - self.since
        if self.state == _RUN and not self.pending:
            self._note_speed()
            self.books.stretch(spent, self._mean_speed(spent), "all")
        else:
            names = {_RESTART: "restart", _UNDETECTED: "undetected", _WAIT: "waiting", _RUN: "lost"}
            self.books.parts_s[names[self.state]] += spent
