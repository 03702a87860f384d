"""One large job through months of failures, event by event.

Like a ship's log: under way, struck, drifting until somebody notices, waiting for a part, starting again. Only strikes
and returning nodes are events; checkpoints are closed forms inside (:class:`Recovery`), so months cost milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import simpy

from sim.cluster.failures.stream import Slowdown
from sim.cluster.outage import Outage
from sim.cluster.recovery import Recovery
from sim.spec.reliability import Spares

PARTS = ("productive", "slowed", "checkpoint", "lost", "undetected", "restart", "waiting")
"""Causes of a job's time: work that lasted, at full speed; the rest of its time, because fewer or slow nodes worked;
writes; work done again; the job hung or computed nonsense and nobody knew; swap, requeue, loading and warm-up; no
devices."""
PLANNED = ("maintenance", "grow")
"""Stops known before: the job writes a checkpoint first."""
_RUN, _RESTART, _UNDETECTED, _WAIT = range(4)


@dataclass(frozen=True, slots=True)
class LongJob:
    """What is run."""

    nodes: int
    recovery: Recovery
    work_s: float = math.inf
    """Useful work with all nodes at full speed; infinite = until the span ends."""
    spares: Spares = Spares(cold_swap_s=0.0, hot_swap_s=0.0)
    min_nodes: int | None = None
    """Fewest nodes it goes on with, at a speed in proportion (elastic data parallelism); none = it waits for all."""
    fails_while_restarting: bool = True
    """Whether failures strike during swap, requeue, loading and warm-up. They never do while it waits for nodes."""

    @property
    def owned(self) -> int:
        """Nodes it has, spares included; outages come for these numbers."""
        return self.nodes + self.spares.cold + self.spares.hot


class JobRun(NamedTuple):
    """What became of it."""

    span_s: float
    parts_s: Mapping[str, float]
    """Its time by cause (:data:`PARTS`); adds up to the span."""
    finished: bool
    interruptions: Mapping[str, int]
    """Times it was struck, by cause."""
    speed_frac: float
    """Mean speed while under way, full speed = 1."""

    @property
    def goodput_frac(self) -> float:
        """Share of the span that became work that lasts."""
        return self.parts_s["productive"] / self.span_s if self.span_s else 1.0


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
        self.active = set(range(job.nodes))
        self.hot = deque(range(job.nodes, job.nodes + job.spares.hot))
        self.cold = deque(range(job.nodes + job.spares.hot, job.owned))
        self.parts = dict.fromkeys(PARTS, 0.0)
        self.struck: Counter[str] = Counter()
        self.state, self.since = _RUN, 0.0
        self.pending: list[Outage] = []  # outages not yet handled by the job, the first one in charge
        self.slow: dict[int, float] = {}  # node -> speed
        self.returned: simpy.Event | None = None
        self.ran_useful = self.ran_done = 0.0  # of all stretches: time computing, and the same at full speed
        self.done = False
        # the stretch under way: work so far in full-speed seconds is mean speed x useful time
        self.work_left, self.phase, self.fragile = job.work_s, 0.0, (0.0, 0.0)
        self.speed_area = self.speed_since = 0.0
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
        speed = self.ran_done / self.ran_useful if self.ran_useful else 1.0
        return JobRun(span, dict(self.parts), self.done, dict(sorted(self.struck.items())), speed)

    # --- what happens to it ---

    def _weather(self, outages: Iterator[Outage]) -> Generator[Any, None, None]:
        for outage in outages:
            yield self.env.timeout(max(outage.at_s - self.env.now, 0.0))
            self._strike(outage)

    def _strike(self, outage: Outage) -> None:
        lost = [node for node in outage.nodes if node in self.active]
        for node in [node for node in outage.nodes if node in self.hot]:
            self.hot.remove(node)
            self._send_to_repair(node, outage.detect_s + outage.down_s)
        if not lost and outage.nodes:
            return
        safe = self.state == _WAIT or (self.state == _RESTART and not self.job.fails_while_restarting)
        if safe or self.done or (outage.cause == "silent" and not self._computes()):
            return
        self.pending.append(outage._replace(nodes=tuple(lost)))
        if len(self.pending) == 1 and self.state != _UNDETECTED:
            self.main.interrupt()

    def _computes(self) -> bool:
        """Whether there is anything now that a silent error could spoil."""
        if self.state != _RUN or self.pending or not self.job.recovery.verify_s:
            return self.state == _RUN and not self.pending
        return self.job.recovery.undetected_s(self.env.now - self.since, phase_s=self.phase) is not None

    def _drag(self, slowdowns: Iterator[Slowdown]) -> Generator[Any, None, None]:
        for slow in slowdowns:
            yield self.env.timeout(max(slow.at_s - self.env.now, 0.0))
            if slow.node in self.active and slow.node not in self.slow:
                self._note_speed()
                self.slow[slow.node] = slow.speed_frac
                found = self.env.timeout(max(slow.until_s - self.env.now, 0.0), slow.node)
                found.callbacks.append(lambda event: self._found_slow(event.value))
                self._turn()

    def _found_slow(self, node: int) -> None:
        if node in self.slow:
            self._note_speed()
            del self.slow[node]
            self._turn()

    def _turn(self) -> None:
        """Speed or size has changed: a stretch that will end must be timed again."""
        if self.state == _RUN and not self.pending and not self.done and math.isfinite(self.work_left):
            self.main.interrupt()

    # --- what it does ---

    def _sail(self) -> Generator[Any, None, None]:
        yield self.env.timeout(0.0)
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
                self._book_stretch(self.env.now - self.since, keep="all", last=True)
                return
            except simpy.Interrupt:
                if self.pending:
                    raise

    def _wall_left_s(self) -> float:
        """Time until the work is done if the speed stays as it is."""
        if math.isinf(self.work_left):
            return math.inf
        ran = self.env.now - self.since
        useful = self.job.recovery.progress(ran, phase_s=self.phase).useful_s
        mean = self.speed_area / ran if ran else 1.0
        needed = useful + max(self.work_left - mean * useful, 0.0) / self._speed()
        return max(self.job.recovery.wall_s(needed, phase_s=self.phase) - ran, 0.0)

    def _struck(self) -> Generator[Any, None, bool]:
        """From a strike until the job may start again; says whether it restores from memory."""
        first, recovery, running = self.pending[0], self.job.recovery, self.state == _RUN
        ran = self.env.now - self.since
        self.struck[first.cause] += 1
        checked = first.cause == "silent" and recovery.verify_s > 0
        hidden = recovery.undetected_s(ran, phase_s=self.phase) if checked else None
        from_memory = recovery.memory is not None and len(first.nodes) <= recovery.memory.node_losses
        if running:
            keep = "all" if first.cause in PLANNED else "memory" if from_memory else "durable"
            self._note_speed()
            self._book_stretch(ran, keep=keep)
        else:
            self.parts["restart"] += ran
            if not from_memory and first.cause not in PLANNED:
                self._lose_fragile()
        if first.cause in PLANNED and running and math.isfinite(recovery.interval_s):
            yield from self._spend(_WAIT, recovery.durable_s, "checkpoint")
        yield from self._spend(_UNDETECTED, first.detect_s if hidden is None else hidden, "undetected")
        struck, self.pending = self.pending, []
        for outage in struck:
            for node in outage.nodes:
                self.active.discard(node)
                self.slow.pop(node, None)
                self._send_to_repair(node, outage.down_s)
            if outage is not first and (
                recovery.memory is None or len(outage.nodes) > recovery.memory.node_losses
            ):
                from_memory = from_memory and not outage.nodes
        if not from_memory and recovery.memory is not None and first.cause not in PLANNED:
            self._lose_fragile()
        if not first.nodes:
            yield from self._spend(_WAIT, first.down_s, "waiting")
        return from_memory

    def _restart(self, from_memory: bool) -> Generator[Any, None, None]:
        """Find nodes, wait for them or shrink, queue again, load and warm up."""
        swap = self._fill()
        floor = self.job.nodes if self.job.min_nodes is None else self.job.min_nodes
        while len(self.active) < floor:
            self.returned = self.env.event()
            self._enter(_WAIT)
            yield self.returned
            self.parts["waiting"] += self.env.now - self.since
            swap = max(swap, self._fill())
        self.returned = None
        if self.requeue is not None:
            yield from self._spend(_WAIT, next(self.requeue), "waiting")
        recovery = self.job.recovery
        load = recovery.memory.restart_s if from_memory and recovery.memory else recovery.restart_s
        try:
            yield from self._spend(_RESTART, swap + load, "restart")
        except simpy.Interrupt:
            return  # struck again: the strike books the time that passed

    def _fill(self) -> float:
        """Take spares, the hot first; returns the time their swap takes."""
        swap = 0.0
        for pool, cost in ((self.hot, self.job.spares.hot_swap_s), (self.cold, self.job.spares.cold_swap_s)):
            while pool and len(self.active) < self.job.nodes:
                self.active.add(pool.popleft())
                swap = max(swap, cost)
        return swap

    def _spend(self, state: int, seconds: float, part: str) -> Generator[Any, None, None]:
        self._enter(state)
        if seconds > 0:
            yield self.env.timeout(seconds)
        self.parts[part] += self.env.now - self.since
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
        """A node is mended: it becomes a spare, of the kind there is too little of, or joins a job that lacks it."""
        if self.returned is None and len(self.hot) < self.job.spares.hot:
            self.hot.append(node)
        else:
            self.cold.append(node)
        if self.returned is not None:
            if not self.returned.triggered:
                self.returned.succeed()
        elif self.state == _RUN and len(self.active) < self.job.nodes and not self.pending and not self.done:
            # a job that shrank grows again: a planned stop
            self.pending.append(Outage(self.env.now, (), "grow", 0.0, 0.0))
            self.main.interrupt()

    # --- its books ---

    def _speed(self) -> float:
        return len(self.active) / self.job.nodes * min(self.slow.values(), default=1.0)

    def _note_speed(self) -> None:
        if self.state == _RUN:
            self.speed_area += (self.env.now - max(self.speed_since, self.since)) * self._speed()
            self.speed_since = self.env.now

    def _book_stretch(self, ran_s: float, *, keep: str, last: bool = False) -> None:
        """Share a stretch out; what is kept lasts, the rest is lost. Slow spells are spread evenly over it."""
        got = self.job.recovery.progress(ran_s, phase_s=self.phase)
        kept = {"all": got.useful_s, "memory": got.memory_s, "durable": got.durable_s}[keep]
        mean = self.speed_area / ran_s if ran_s > 0 else 1.0
        self.parts["checkpoint"] += got.checkpoint_s
        self.parts["lost"] += got.useful_s - kept
        self.parts["productive"] += mean * kept
        self.parts["slowed"] += (1 - mean) * kept
        self.ran_useful += got.useful_s
        self.ran_done += mean * got.useful_s
        self.work_left = 0.0 if last else self.work_left - mean * kept
        fresh = kept - got.durable_s if got.durable_s > 0 else kept
        before = (0.0, 0.0) if got.durable_s > 0 else self.fragile
        if keep == "memory":
            self.fragile = (before[0] + mean * fresh, before[1] + (1 - mean) * fresh)
            self.phase = got.memory_s - got.durable_s if got.durable_s > 0 else self.phase + got.memory_s
        elif keep == "all" or got.durable_s > 0:
            self.fragile, self.phase = (0.0, 0.0), 0.0
        else:
            self._lose_fragile()

    def _lose_fragile(self) -> None:
        """Work that only memory held has gone with it."""
        fast, slow = self.fragile
        self.parts["productive"] -= fast
        self.parts["slowed"] -= slow
        self.parts["lost"] += fast + slow
        self.work_left += fast
        self.fragile, self.phase = (0.0, 0.0), 0.0

    def _close_unfinished(self) -> None:
        """The span is over: what was done counts as done, though not all of it is saved."""
        spent = self.env.now - self.since
        if self.state == _RUN and not self.pending:
            self._note_speed()
            self._book_stretch(spent, keep="all")
        else:
            names = {_RESTART: "restart", _UNDETECTED: "undetected", _WAIT: "waiting", _RUN: "lost"}
            self.parts[names[self.state]] += spent
