"""The dispatcher: plays months of a cluster, event by event, on SimPy.

One railway controller with one clock: arrivals, ends, faults and repairs reach him as bare timeouts; he writes the
board, asks the policy, and sends jobs off. There is no process per job, so what a run costs depends on the number of
events, not on the span, and what it holds in memory on the jobs in the system, not on the trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

from sim.cluster.board import Board, TraceError
from sim.cluster.clock import FIRST, SECOND
from sim.cluster.desk import Desk
from sim.cluster.nodes import Ground
from sim.cluster.outage import Outage
from sim.cluster.policy import Policy
from sim.cluster.rules import Rules
from sim.cluster.state import JobState
from sim.collection import without_collection
from sim.results.cluster_log import ClusterLog, Downtime, Sink
from sim.spec.job import Job


class Dispatcher:
    """Events of one run; made and used once by ``sim.cluster.run.simulate``."""

    def __init__(
        self,
        jobs: Iterable[Job],
        ground: Ground,
        policy: Policy,
        rules: Rules,
        outages: Iterable[Outage] = (),
        sink: Sink | None = None,
        start_s: float = 0.0,
    ) -> None:
        self._board = Board(ground, policy, rules, Sink() if sink is None else sink, start_s)
        self._board.ended, self._board.hazarded = self._ended, self._hazarded
        self._desk = Desk(self._board, self._woken)
        self._jobs: Iterator[Job] = iter(jobs)
        self._outages = iter(outages)
        self._downtimes: list[Downtime] = []
        self._down_s: dict[int, tuple[float, str]] = {}
        self._counter = 0
        self._more = True
        self._owes_pass = False
        self._bounded = False
        self._start_s = start_s
        self._one_pass, self._idle_passes = rules.one_pass, policy.idle_passes
        self._strict = self._desk.strict
        self._by_queue = type(policy).group is Policy.group
        self._neighbours = rules.contention is not None
        self._more_now, self._put = self._board.clock.more_now, self._board.clock.put
        self._arrival = self._board.clock.moment(self._submitted)
        self._pass = self._desk.serve_heads if self._strict else self._desk.ask
        self._submits = SECOND if rules.completions_first else FIRST

    def play(self, until_s: float = math.inf) -> ClusterLog:
        """Run until every job is through, or until a time."""
        self._next_job()
        self._next_outage()
        bounded = self._bounded = not math.isinf(until_s)
        try:
            # when nothing more is to come, whoever still waits can never start
            self._board.clock.over = not (bounded or self._more)
            # a policy of the user's own may leave cycles behind; ours do not
            with nullcontext() if self._board.policy.guarded else without_collection():
                self._board.clock.play(until_s)
        finally:
            self._desk.close()
        return self._close(until_s if bounded else self._board.now)

    def _close(self, end_s: float) -> ClusterLog:
        if end_s > self._board.clock.now:
            self._board.clock.run(until=end_s)
        self._board.advance()
        for state in list(self._board.running.values()):
            self._board.stop(state, "open")
            self._board.write(state, None, "running")
        for state in list(self._board.waiting):
            state.queued_s += end_s - state.since_s
            self._board.write(state, None, "waiting")
        for node, (since_s, cause) in sorted(self._down_s.items()):
            self._downtimes.append(Downtime(node, since_s, end_s, cause))
        return ClusterLog(
            devices=int(self._board.ground.total_gpus),
            span_s=end_s - self._start_s,
            segments=self._board.sink.segments,
            records=self._board.sink.records,
            downtimes=self._downtimes,
            down_gpu_s=self._board.down_gpu_s,
            idle_nobody_waits_gpu_s=self._board.idle_gpu_s,
            idle_though_jobs_wait_gpu_s=self._board.idle_waiting_gpu_s,
            waiting_job_s=self._board.waiting_job_s,
            passes=self._desk.passes,
            start_s=self._start_s,
        )

    # --- events --------------------------------------------------------------------------------------------------

    def _next_job(self) -> None:
        job = next(self._jobs, None)
        if job is None:
            self._more = False
            return
        submit_s = job.submit_s
        if not (self._board.now <= submit_s < math.inf and job.duration_s >= 0 and job.gpus >= 0):
            raise TraceError(_wrong(job, self._board.now))
        self._put(self._arrival, submit_s, job, self._submits)

    def _submitted(self, event: Any) -> None:
        board = self._board
        board.advance()
        job: Job = event._value
        state = JobState(job, self._counter, job.queue)
        self._counter += 1
        if not self._by_queue:
            state.group = board.policy.group(state)
        self._next_job()
        waiting = board.waiting
        nobody_waits = self._strict and not waiting.size
        if nobody_waits and not (self._one_pass and self._more_now()) and self._desk.starts_at_once(state):
            if self._neighbours:
                board.re_pace()
            return
        least = job.gpus if job.min_gpus is None else min(job.min_gpus, job.gpus)
        if board.ground.could_hold(job, least):
            board.enqueue(state)
            if self._strict and not self._owes_pass and waiting.first is not state:
                return  # the head did not fit before, and whoever stands behind it changes nothing
        else:
            board.write(state, None, "refused")
        self._settle_instant()

    def _ended(self, event: Any) -> None:
        board = self._board
        board.advance()
        state: JobState = event._value
        if state.ending is event:
            board.finish(state, "timeout" if state.limited else "completed")
        elif not self._owes_pass:
            return  # an end that was put off or called off is no news to anybody
        self._settle_instant()

    def _hazarded(self, event: Any) -> None:
        """A job meets a fault of its own: nothing gets done until it is noticed."""
        self._board.advance()
        state, stretch, detect_s = event._value
        # neither over, nor hit by another fault before
        if state.running and state.stretch == stretch and math.isinf(state.fault_s):
            now = state.fault_s = self._board.now
            state.ending = self._board.at(now + detect_s, self._noticed, state, FIRST)
        self._settle_instant()

    def _noticed(self, event: Any) -> None:
        self._board.advance()
        state: JobState = event._value
        if state.ending is event:
            self._fail(state)
        self._settle_instant()

    def _fail(self, state: JobState) -> None:
        self._board.stop(state, "failed")
        state.failures += 1
        self._board.enqueue(state)

    def _next_outage(self) -> None:
        outage = next(self._outages, None)
        if outage is not None:
            at_s = max(outage.at_s, self._board.now)
            self._board.at(at_s, self._broken, outage, FIRST)

    def _broken(self, event: Any) -> None:
        """Nodes fail: jobs there hold their devices and get nothing done until somebody knows."""
        self._board.advance()
        outage: Outage = event._value
        self._next_outage()
        self._board.faulty.update(outage.nodes)
        for state in self._on(outage.nodes):
            state.fault_s = min(state.fault_s, self._board.now)
            state.ending = None
        self._board.at(self._board.now + outage.detect_s, self._detected, outage, FIRST)
        self._settle_instant()

    def _on(self, nodes: tuple[int, ...]) -> list[JobState]:
        lost = set(nodes)
        return [
            state
            for state in self._board.running.values()
            if any(node in lost for node, _ in state.placed.spots)
        ]

    def _detected(self, event: Any) -> None:
        outage: Outage = event._value
        self._board.advance()
        now = self._board.now
        for state in self._on(outage.nodes):
            self._fail(state)
        for node in outage.nodes:
            self._board.faulty[node] -= 1
            if not self._board.faulty[node]:
                del self._board.faulty[node]
            self._board.ground.close(node)
            self._down_s.setdefault(node, (now, outage.cause))
        self._board.at(now + outage.down_s, self._repaired, outage, FIRST)
        self._board.changed = True
        self._settle_instant()

    def _repaired(self, event: Any) -> None:
        outage: Outage = event._value
        self._board.advance()
        now = self._board.now
        for node in outage.nodes:
            if self._board.ground.open(node):
                self._board.view.releases += 1
                since_s, cause = self._down_s.pop(node)
                self._downtimes.append(Downtime(node, since_s, now, cause))
        self._board.changed = True
        self._settle_instant()

    def _settle_instant(self) -> None:
        """Ask the policy, once the last event of this instant is in (or after each, where the rules say so)."""
        board = self._board
        if not (self._more or board.running or board.waiting.size or self._bounded):
            board.clock.over = True
        if self._one_pass and self._more_now():
            self._owes_pass = True
            return
        self._owes_pass = False
        if board.waiting.size or (self._idle_passes and board.running):
            self._pass()
        if self._neighbours:
            self._board.re_pace()

    def _woken(self) -> None:
        self._board.advance()
        self._settle_instant()


def _wrong(job: Job, now_s: float) -> str:
    """What keeps a job from being played."""
    if math.isfinite(job.submit_s) and job.duration_s >= 0 and job.gpus >= 0:
        return (
            f"job {job.name!r}: submitted at {job.submit_s} s after one submitted at {now_s} s: "
            "a trace must be sorted by submit_s"
        )
    return (
        f"job {job.name!r}: submit_s {job.submit_s}, gpus {job.gpus}, duration_s {job.duration_s}: "
        "expected a finite time and no negative number"
    )
