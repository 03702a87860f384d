"""The dispatcher: plays months of a cluster, event by event, on SimPy.

One railway controller with one clock: arrivals, ends, faults and repairs reach him as bare timeouts; he writes the
board, asks the policy, and sends jobs off. There is no process per job, so what a run costs depends on the number of
events, not on the span, and what it holds in memory on the jobs in the system, not on the trace.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType
from typing import Any

import simpy
from simpy.events import EventPriority

from sim.cluster.nodes import Ground
from sim.cluster.outage import Outage
from sim.cluster.policy import (
    Cancel,
    Decision,
    Decisions,
    Policy,
    PolicyError,
    Preempt,
    Resize,
    Start,
    View,
    Wake,
)
from sim.cluster.queue import Waiting
from sim.cluster.rules import Rules
from sim.cluster.settle import settle
from sim.cluster.state import NOWHERE, JobState
from sim.cluster.usage import Usage
from sim.results.cluster_log import ClusterLog, Downtime, JobRecord, Sink
from sim.spec.job import Job

FIRST, SECOND = simpy.events.URGENT, simpy.events.NORMAL
PAST: Any = (math.inf, -1, None)
CIRCLES = 1000
"""Passes at one instant that change nothing before a policy is said to go in circles."""


class Moment(simpy.Event):
    """A bare timeout at an absolute time, with one callback; among events of one time, the smaller priority is
    first."""

    def __init__(
        self,
        environment: simpy.Environment,
        at_s: float,
        act: Callable[[Any], None],
        value: Any,
        priority: EventPriority,
    ) -> None:
        self.env = environment
        self.callbacks = [act]
        self._value = value
        self._ok = True
        environment.schedule(self, priority, at_s - environment.now)


class TraceError(ValueError):
    """A trace that cannot be played: names the job and what is wrong with it."""


class Dispatcher:
    """State of one run; made and used once by ``sim.cluster.run.simulate``."""

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
        self._environment = simpy.Environment(initial_time=start_s)
        self._jobs: Iterator[Job] = iter(jobs)
        self._ground, self._policy, self._rules = ground, policy, rules
        self._outages = iter(outages)
        self._sink = Sink() if sink is None else sink
        self._downtimes: list[Downtime] = []
        self._running: dict[int, JobState] = {}
        self._running_key = policy.running_key
        self._cards: list[Any] = []
        self._waiting = Waiting(policy.key)
        self._usage = Usage(policy.key, policy.half_life_s)
        self._metered, self._grouped = policy.metered or policy.grouped, policy.grouped
        self._faulty: Counter[int] = Counter()
        self._view = View(
            ground,
            self._waiting,
            self._running if self._running_key is None else self._cards,
            self._usage,
        )
        self._counter = 0
        self._queued = 0
        self._more = True
        self._wake: Any = None
        self._now = self._start_s = self._last_s = start_s
        self._down_s: dict[int, tuple[float, str]] = {}
        self._down_gpu_s = self._idle_gpu_s = self._idle_waiting_gpu_s = self._waiting_job_s = 0.0
        self._passes = self._fruitless = 0
        self._changed = False
        self._one_pass = rules.one_pass
        self._ends, self._submits = (FIRST, SECOND) if rules.completions_first else (SECOND, FIRST)

    # --- clock ---------------------------------------------------------------------------------------------------

    def _at(
        self, at_s: float, act: Callable[[Any], None], value: Any, priority: EventPriority = SECOND
    ) -> Moment:
        """An event at a time not before now."""
        return Moment(self._environment, at_s, act, value, priority)

    def _advance(self) -> None:
        """Write the time since the last event into the books."""
        now = self._now = self._environment.now
        passed = now - self._last_s
        if passed:
            ground, waiting = self._ground, self._waiting.size
            if waiting:
                self._idle_waiting_gpu_s += ground.free_gpus * passed
                self._waiting_job_s += waiting * passed
            else:
                self._idle_gpu_s += ground.free_gpus * passed
            if ground.down_gpus:
                self._down_gpu_s += ground.down_gpus * passed
            self._last_s = now

    def play(self, until_s: float = math.inf) -> ClusterLog:
        """Run until every job is through, or until a time."""
        self._next_job()
        self._next_outage()
        environment = self._environment
        step, peek = environment.step, environment.peek
        bounded = not math.isinf(until_s)
        try:
            while bounded or self._more or self._running or len(self._waiting):
                if bounded and peek() > until_s:
                    break
                step()
        except simpy.core.EmptySchedule:
            pass  # whoever still waits can never start: nothing more will happen
        return self._close(until_s if bounded else self._last_s)

    def _close(self, end_s: float) -> ClusterLog:
        if end_s > self._environment.now:
            self._environment.run(until=end_s)
        self._advance()
        for state in list(self._running.values()):
            self._stop(state, "open")
            self._write(state, None, "running")
        for state in list(self._waiting):
            state.queued_s += end_s - state.since_s
            self._write(state, None, "waiting")
        for node, (since_s, cause) in sorted(self._down_s.items()):
            self._downtimes.append(Downtime(node, since_s, end_s, cause))
        return ClusterLog(
            devices=int(self._ground.total_gpus),
            span_s=end_s - self._start_s,
            segments=self._sink.segments,
            records=self._sink.records,
            downtimes=self._downtimes,
            down_gpu_s=self._down_gpu_s,
            idle_nobody_waits_gpu_s=self._idle_gpu_s,
            idle_though_jobs_wait_gpu_s=self._idle_waiting_gpu_s,
            waiting_job_s=self._waiting_job_s,
            passes=self._passes,
            start_s=self._start_s,
        )

    # --- events --------------------------------------------------------------------------------------------------

    def _next_job(self) -> None:
        job = next(self._jobs, None)
        if job is None:
            self._more = False
            return
        if not (job.duration_s >= 0 and job.gpus >= 0 and math.isfinite(job.submit_s)):
            raise TraceError(
                f"job {job.name!r}: submit_s {job.submit_s}, gpus {job.gpus}, duration_s {job.duration_s}: "
                "expected a finite time and no negative number"
            )
        if job.submit_s < self._now:
            raise TraceError(
                f"job {job.name!r}: submitted at {job.submit_s} s after one submitted at {self._now} s: "
                "a trace must be sorted by submit_s"
            )
        self._at(job.submit_s, self._submitted, job, self._submits)

    def _submitted(self, event: Any) -> None:
        self._advance()
        job: Job = event._value
        state = JobState(job, self._counter)
        self._counter += 1
        state.group = self._policy.group(state)
        self._next_job()
        if self._ground.could_hold(job, job.gpus if job.min_gpus is None else min(job.min_gpus, job.gpus)):
            self._enqueue(state)
        else:
            self._write(state, None, "refused")
        self._settle_instant()

    def _ended(self, event: Any) -> None:
        self._advance()
        state: JobState = event._value
        if state.ending is event:
            limited = self._rules.kill_at_limit and state.end_s < self._natural_end_s(state)
            why = "timeout" if limited else "completed"
            self._stop(state, why)
            self._write(state, self._now, why)
            state.entry = state.running_entry = (
                PAST  # its cards point back at it: without them it is freed now
            )
        self._settle_instant()

    def _hazarded(self, event: Any) -> None:
        """A job meets a fault of its own: nothing gets done until it is noticed."""
        self._advance()
        state, token, detect_s = event._value
        if state.ending is token:
            now = state.fault_s = self._now
            state.ending = self._at(now + detect_s, self._noticed, state, FIRST)
        self._settle_instant()

    def _noticed(self, event: Any) -> None:
        self._advance()
        state: JobState = event._value
        if state.ending is event:
            self._fail(state)
        self._settle_instant()

    def _fail(self, state: JobState) -> None:
        self._stop(state, "failed")
        state.failures += 1
        self._enqueue(state)

    def _next_outage(self) -> None:
        outage = next(self._outages, None)
        if outage is not None:
            at_s = max(outage.at_s, self._now)
            self._at(at_s, self._broken, outage, FIRST)

    def _broken(self, event: Any) -> None:
        """Nodes fail: jobs there hold their devices and get nothing done until somebody knows."""
        self._advance()
        outage: Outage = event._value
        self._next_outage()
        self._faulty.update(outage.nodes)
        for state in self._on(outage.nodes):
            state.fault_s = min(state.fault_s, self._now)
            state.ending = None
        self._at(self._now + outage.detect_s, self._detected, outage, FIRST)
        self._settle_instant()

    def _on(self, nodes: tuple[int, ...]) -> list[JobState]:
        lost = set(nodes)
        return [
            state for state in self._running.values() if any(node in lost for node, _ in state.placed.spots)
        ]

    def _detected(self, event: Any) -> None:
        outage: Outage = event._value
        self._advance()
        now = self._now
        for state in self._on(outage.nodes):
            self._fail(state)
        for node in outage.nodes:
            self._faulty[node] -= 1
            if not self._faulty[node]:
                del self._faulty[node]
            self._ground.close(node)
            self._down_s.setdefault(node, (now, outage.cause))
        self._at(now + outage.down_s, self._repaired, outage, FIRST)
        self._changed = True
        self._settle_instant()

    def _repaired(self, event: Any) -> None:
        outage: Outage = event._value
        self._advance()
        now = self._now
        for node in outage.nodes:
            if self._ground.open(node):
                self._view.releases += 1
                since_s, cause = self._down_s.pop(node)
                self._downtimes.append(Downtime(node, since_s, now, cause))
        self._changed = True
        self._settle_instant()

    # --- the board -----------------------------------------------------------------------------------------------

    def _enqueue(self, state: JobState) -> None:
        state.queued = self._queued
        self._queued += 1
        state.since_s = self._now
        state.waits = True
        self._waiting.add(state)
        if self._grouped:
            entry = state.entry
            self._usage.of(state.group).waiting.add(state)
            state.entry = entry
        self._changed = True

    def _dequeue(self, state: JobState) -> None:
        state.queued_s += self._now - state.since_s
        state.waits = False
        self._waiting.remove(state)
        if self._grouped:
            self._usage.of(state.group).waiting.remove(state)
        self._changed = True

    def _natural_end_s(self, state: JobState) -> float:
        wall_s = state.work_left_s / state.rate
        recovery = self._rules.recovery(state.job)
        return state.since_s + state.owed_s + recovery.wall_s(wall_s, restarted=state.restarted)

    def _go(self, state: JobState, placed: Any, gpus: int) -> None:
        """Devices are taken: a stretch begins."""
        now = self._now
        rules = self._rules
        state.running = True
        state.placed, state.gpus, state.since_s = placed, gpus, now
        state.rate = rules.rate(state, gpus, self._ground.speed(placed), placed)
        if not state.rate > 0:
            raise TraceError(
                f"job {state.job.name!r}: its rate at {gpus} devices is {state.rate}: expected more than 0"
            )
        if state.first_start_s is None:
            state.first_start_s = now
        end_s = self._natural_end_s(state)
        if rules.kill_at_limit:
            end_s = min(end_s, max(state.limit_end_s, now))
        state.end_s = end_s
        state.ending = self._at(end_s, self._ended, state, self._ends)
        hazard = None if rules.hazard is None else rules.hazard(state)
        if hazard is not None and now + hazard.after_s < end_s:
            self._at(now + hazard.after_s, self._hazarded, (state, state.ending, hazard.detect_s), FIRST)
        if self._faulty and any(node in self._faulty for node, _ in placed.spots):
            state.fault_s, state.ending = now, None  # nobody knows yet, and nothing gets done there
        self._running[state.number] = state
        if self._running_key is not None:
            state.running_entry = (self._running_key(state), state.number, state)
            insort(self._cards, state.running_entry)
        if self._metered:
            self._usage.hold(state, 1, now)
        self._changed = True

    def _stop(self, state: JobState, why: str) -> None:
        """A stretch ends: devices are given back, and the books get their line."""
        now = self._now
        ran_s = now - state.since_s
        self._sink.segment(settle(state, now, why, self._rules))
        state.attained_gpu_s += state.gpus * ran_s
        state.ran_s = 0.0 if why == "failed" else state.ran_s + ran_s
        if state.job.limit_s is not None:
            state.limit_left_s = state.job.limit_s - state.ran_s
        self._view.releases += 1
        if self._metered:
            self._usage.hold(state, -1, now)
        del self._running[state.number]
        if self._running_key is not None:
            del self._cards[bisect_left(self._cards, state.running_entry)]
        self._ground.release(state.placed, state.job)
        state.running, state.ending, state.fault_s = False, None, math.inf
        state.placed = NOWHERE
        state.gpus = state.job.gpus
        state.since_s = now
        state.restarted = True
        self._changed = True

    def _write(self, state: JobState, end_s: float | None, outcome: str) -> None:
        job = state.job
        self._sink.record(
            JobRecord(
                job.name, state.number, job.gpus, state.submit_s, state.first_start_s, end_s, state.queued_s,
                state.preemptions, state.failures, outcome, job.user, job.queue,
            )
        )  # fmt: skip
        state.entry = state.running_entry = (
            PAST  # its cards point back at it: without them it is freed at once
        )

    # --- the policy ----------------------------------------------------------------------------------------------

    def _settle_instant(self) -> None:
        """Ask the policy, once the last event of this instant is in (or after each, where the rules say so)."""
        if self._one_pass and self._environment.peek() <= self._now:
            return
        if self._waiting.size or (self._policy.idle_passes and self._running):
            self._pass()

    def _woken(self, event: Any) -> None:
        if self._wake is event:
            self._wake = None
        self._advance()
        self._settle_instant()

    def _pass(self) -> None:
        view, now = self._view, self._now
        self._passes += 1
        self._fruitless = 0 if self._changed or now > view.now_s else self._fruitless + 1
        view.now_s = now
        self._changed = False
        if self._fruitless > CIRCLES:
            raise PolicyError(
                f"policy {self._policy.name}: {CIRCLES} passes in a row changed nothing at {now} s"
            )
        budget = self._rules.decisions_per_pass * (self._waiting.size + len(self._running) + 1)
        decision: Decision | None = None
        done: bool | None = None
        send: Callable[[Any], Decision] | None = None
        while budget:
            try:
                if send is None:
                    send = _sender(self._policy.decide(view))
                decision = send(done)
            except StopIteration:
                return
            except Exception as error:
                raise PolicyError(
                    f"policy {self._policy.name} raised {type(error).__name__}: {error} at {now} s, "
                    f"after {_told(decision)}"
                ) from error
            done = self._carry_out(decision)
            budget -= 1
        raise PolicyError(f"policy {self._policy.name} goes in circles at {now} s: {_told(decision)}")

    def _carry_out(self, decision: Decision) -> bool:
        if type(decision) is Start and type(decision.state) is JobState:
            return self._start(decision)
        if type(decision) is Wake:
            return self._wake_at(decision.at_s)
        state = getattr(decision, "state", None)
        if not isinstance(state, JobState):
            raise PolicyError(f"policy {self._policy.name}: {decision!r} is no decision about a job")
        if type(decision) is Preempt:
            self._must(state.running, state, "is preempted but does not run")
            self._must(state.job.preemptible, state, "is preempted but is not preemptible")
            self._stop(state, "preempted")
            state.preemptions += 1
            self._enqueue(state)
            return True
        if type(decision) is Resize:
            return self._resize(state, decision.gpus)
        if type(decision) is Cancel:
            self._must(state.waits, state, "is cancelled but does not wait")
            self._dequeue(state)
            self._write(state, None, "refused")
            return True
        raise PolicyError(f"policy {self._policy.name}: {decision!r} is no decision")

    def _must(self, true: bool, state: JobState, wrong: str) -> None:
        if not true:
            raise PolicyError(f"policy {self._policy.name}: job {state.job.name!r} {wrong} at {self._now} s")

    def _start(self, decision: Start) -> bool:
        state, gpus, pool, placed = decision
        if not state.waits:
            self._must(not state.running, state, "is started twice")
            self._must(False, state, "is started but does not wait")
        job = state.job
        count = job.gpus if gpus is None else self._allowed(state, gpus)
        ground = self._ground
        if placed is None:
            placed = ground.place(job, count, pool)
            if placed is None:
                return False
        else:
            held = sum(devices for _, devices in placed.spots)
            self._must(held == count, state, f"is given {held} devices and asks for {count}")
            self._must(ground.take(placed, job), state, "is given devices that are not free")
        self._dequeue(state)
        self._go(state, placed, count)
        return True

    def _allowed(self, state: JobState, gpus: int) -> int:
        job = state.job
        least = job.gpus if job.min_gpus is None else min(job.min_gpus, job.gpus)
        most = job.gpus if job.max_gpus is None else max(job.max_gpus, job.gpus)
        self._must(least <= gpus <= most, state, f"gets {gpus} devices and can use {least} to {most}")
        return gpus

    def _resize(self, state: JobState, gpus: int) -> bool:
        """Change the devices of a running job; where the new gang does not fit, the old one stays as it is."""
        self._must(state.running, state, "is resized but does not run")
        gpus = self._allowed(state, gpus)
        if gpus == state.gpus or not math.isinf(state.fault_s):
            return False
        ground, job, old = self._ground, state.job, state.placed
        ground.release(old, job)
        placed = ground.place(job, gpus)
        if placed is not None:
            ground.release(placed, job)
        ground.take(old, job)
        if placed is None:
            return False
        self._stop(state, "resized")
        state.owed_s += self._rules.resize_overhead_s(job)
        self._must(ground.take(placed, job), state, "lost its devices while it was resized")
        self._go(state, placed, gpus)
        return True

    def _wake_at(self, at_s: float) -> bool:
        now = self._now
        if math.isinf(at_s) or math.isnan(at_s):
            return False
        if self._wake is None or at_s < self._wake._value:
            at_s = max(at_s, now)
            self._wake = self._at(at_s, self._woken, at_s)
        return True


def _sender(decisions: Decisions) -> Callable[[Any], Decision]:
    """A generator is told whether its decision was carried out; a list is only read."""
    if isinstance(decisions, GeneratorType):
        send: Callable[[Any], Decision] = decisions.send
        return send
    rest = iter(decisions)
    return lambda _: next(rest)


def _told(decision: Decision | None) -> str:
    if decision is None:
        return "no decision"
    state = getattr(decision, "state", None)
    job = f" of job {state.job.name!r}" if isinstance(state, JobState) else ""
    return f"the decision {type(decision).__name__}{job}"
