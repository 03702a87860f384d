"""The policy's desk: asks the policy, checks each decision, and carries it out on the board.

The policy is a guest. What it raises, gives away twice or repeats for ever stops the run with its name and the job.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import GeneratorType
from typing import Any

from sim.cluster.board import Board
from sim.cluster.policy import (
    Cancel,
    Decision,
    Decisions,
    Policy,
    PolicyError,
    Preempt,
    Resize,
    Start,
    Wake,
)
from sim.cluster.state import JobState
from sim.cluster.watch import OutOfTime, Watch

CIRCLES = 1000
"""Passes at one instant that change nothing before a policy is said to go in circles."""


class Desk:
    """Passes of one run; ``woken`` is called when the policy asked to be asked again."""

    def __init__(self, board: Board, woken: Callable[[], None]) -> None:
        self._board, self._policy, self._woken_then = board, board.policy, woken
        self._wake: Any = None
        self.passes = self._fruitless = 0
        self._watch: Watch | None = None
        # it keeps what Policy says, so that the desk can serve the queue itself
        self.strict = type(self._policy).decide is Policy.decide and not self._policy.guarded
        self._blocked = self._blocked_releases = -1

    def close(self) -> None:
        """The run is over."""
        if self._watch is not None:
            self._watch.stop()

    def ask(self) -> None:
        """One pass: decisions are carried out one by one as the policy makes them."""
        board = self._board
        view, now = board.view, board.now
        self.passes += 1
        self._fruitless = 0 if board.changed or now > view.now_s else self._fruitless + 1
        view.now_s = now
        board.changed = False
        if self._fruitless > CIRCLES:
            raise PolicyError(
                f"policy {self._policy.name}: {CIRCLES} passes in a row changed nothing at {now} s"
            )
        budget = board.rules.decisions_per_pass * (board.waiting.size + len(board.running) + 1)
        decision: Decision | None = None
        done: bool | None = None
        send: Callable[[Any], Decision] | None = None
        watch = self._watch
        if watch is None and self._policy.guarded:
            watch = self._watch = Watch(board.rules.seconds_per_decision)
        while budget:
            try:
                if watch is not None:
                    watch.begin()
                if send is None:
                    decisions = self._policy.decide(view)
                    if type(decisions) is tuple and not decisions:
                        raise StopIteration
                    send = _sender(decisions)
                decision = send(done)
                if watch is not None:
                    watch.end()
            except StopIteration:
                if watch is not None:
                    watch.end()
                return
            except OutOfTime:
                head = board.waiting.first
                raise PolicyError(
                    f"policy {self._policy.name} made no decision within {board.rules.seconds_per_decision:g} s "
                    f"(a loop without a yield?) at {now} s, after {_told(decision)}; head of the queue: "
                    f"{'nobody' if head is None else f'job {head.job.name!r}'}"
                ) from None
            except Exception as error:
                raise PolicyError(
                    f"policy {self._policy.name} raised {type(error).__name__}: {error} at {now} s, "
                    f"after {_told(decision)}"
                ) from error
            if type(decision) is Start and type(decision.state) is JobState:
                done = self._start(decision)
            else:
                done = self._carry_out(decision)
            budget -= 1
        raise PolicyError(f"policy {self._policy.name} goes in circles at {now} s: {_told(decision)}")

    def starts_at_once(self, state: JobState) -> bool:
        """Under strict order whoever finds nobody waiting starts, if it fits, without joining the queue."""
        board, job = self._board, state.job
        gpus = job.gpus
        if gpus > board.ground.free_gpus and job.gpu_share_frac == 1:
            return False
        placed = board.ground.place(job, gpus, None)
        if placed is None:
            return False
        self.passes += 1
        board.pass_by(state)
        board.go(state, placed, gpus)
        return True

    def serve_heads(self) -> None:
        """The pass of a policy that keeps ``Policy.decide``, strict order, without the talk across the desk."""
        board = self._board
        waiting, ground, releases = board.waiting, board.ground, board.view.releases
        self.passes += 1
        while (head := waiting.first) is not None:
            job = head.job
            gpus = job.gpus
            if gpus > ground.free_gpus and job.gpu_share_frac == 1:
                return
            if head.number == self._blocked and releases == self._blocked_releases:
                return  # a head that did not fit when devices were last freed does not fit now
            placed = ground.place(job, gpus, None)
            if placed is None:
                self._blocked, self._blocked_releases = head.number, releases
                return
            board.dequeue(head)
            board.go(head, placed, gpus)

    def _carry_out(self, decision: Decision) -> bool:
        if type(decision) is Wake:
            return self._wake_at(decision.at_s)
        state = getattr(decision, "state", None)
        if not isinstance(state, JobState):
            raise PolicyError(f"policy {self._policy.name}: {decision!r} is no decision about a job")
        if type(decision) is Preempt:
            self._must(state.running, state, "is preempted but does not run")
            self._must(state.job.preemptible, state, "is preempted but is not preemptible")
            self._board.stop(state, "preempted")
            state.preemptions += 1
            self._board.enqueue(state)
            return True
        if type(decision) is Resize:
            return self._resize(state, decision.gpus)
        if type(decision) is Cancel:
            self._must(state.waits, state, "is cancelled but does not wait")
            self._board.dequeue(state)
            self._board.write(state, None, "refused")
            return True
        raise PolicyError(f"policy {self._policy.name}: {decision!r} is no decision")

    def _must(self, true: bool, state: JobState, wrong: str) -> None:
        if not true:
            raise PolicyError(
                f"policy {self._policy.name}: job {state.job.name!r} {wrong} at {self._board.now} s"
            )

    def _start(self, decision: Start) -> bool:
        state, gpus, pool, placed = decision
        if not state.waits:
            self._must(not state.running, state, "is started twice")
            self._must(False, state, "is started but does not wait")
        job = state.job
        count = job.gpus if gpus is None else self._allowed(state, gpus)
        ground = self._board.ground
        if placed is None:
            placed = ground.place(job, count, pool)
            if placed is None:
                return False
        else:
            held = sum(devices for _, devices in placed.spots)
            self._must(held == count, state, f"is given {held} devices and asks for {count}")
            self._must(ground.take(placed, job), state, "is given devices that are not free")
        self._board.dequeue(state)
        self._board.go(state, placed, count)
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
        ground, job, old = self._board.ground, state.job, state.placed
        ground.release(old, job)
        placed = ground.place(job, gpus)
        if placed is not None:
            ground.release(placed, job)
        ground.take(old, job)
        if placed is None:
            return False
        self._board.stop(state, "resized")
        state.owed_s += self._board.rules.resize_overhead_s(job)
        self._must(ground.take(placed, job), state, "lost its devices while it was resized")
        self._board.go(state, placed, gpus)
        return True

    def _wake_at(self, at_s: float) -> bool:
        now = self._board.now
        if math.isinf(at_s) or math.isnan(at_s):
            return False
        if self._wake is None or at_s < self._wake._value:
            at_s = max(at_s, now)
            self._wake = self._board.at(at_s, self._woken, at_s)
        return True

    def _woken(self, event: Any) -> None:
        if self._wake is event:
            self._wake = None
        self._woken_then()


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
