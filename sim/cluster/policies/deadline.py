"""Deadlines that are kept or refused at once: a workshop that promises a day or says no.

After ElasticFlow (Gu et al., ASPLOS 2023): a job is admitted if the plan of all admitted jobs, earliest deadline
first, still holds with its minimum satisfactory share, the fewest devices with which it ends in time; what is left goes
to jobs without a deadline. Times are those that the scheduler is told: limits, or true durations where there are none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sim.cluster.policies.elastic import least, most, scaled_rate
from sim.cluster.policies.plan import Plan
from sim.cluster.policy import Cancel, Decisions, Policy, Start, View
from sim.cluster.state import JobState

SOON_S = 1.0
"""A running job that outlives its expected end is thought to end so much later (assumed)."""


def expected_s(state: JobState, gpus: int, exponent: float) -> float:
    """Time that a waiting job is expected to run on so many devices."""
    told = state.limit_left_s if math.isfinite(state.limit_left_s) else state.work_left_s
    return told / scaled_rate(exponent, state.job.gpus, gpus) + state.owed_s


def sizes(state: JobState) -> list[int]:
    """Devices that are tried: doublings from the least, those asked for, and the most."""
    size, found = max(least(state), 1), {state.job.gpus, most(state)}
    while size < most(state):
        found.add(size)
        size *= 2
    return sorted(size for size in found if least(state) <= size <= most(state))


def fit(plan: Plan, state: JobState, now_s: float, exponent: float) -> tuple[float, int] | None:
    """(start, devices) with the fewest devices that end in time; None where none do. The plan takes it in."""
    deadline_s = state.job.deadline_s if state.job.deadline_s is not None else math.inf
    for gpus in sizes(state):
        lasts_s = expected_s(state, gpus, exponent)
        start_s = plan.earliest(gpus, lasts_s, now_s)
        if start_s + lasts_s <= deadline_s and math.isfinite(start_s):
            plan.change(-gpus, start_s, start_s + lasts_s)
            return start_s, gpus
    return None


@dataclass(frozen=True)
class Deadline(Policy):
    """Earliest deadline first with admission. A job that has been admitted and is late all the same (a fault) is not
    thrown out; it goes on as one without a deadline."""

    exponent: float = 0.9
    name: str = "deadline"
    clairvoyant: bool = True

    def key(self, state: JobState) -> Any:
        """Deadline, none last."""
        return (math.inf if state.job.deadline_s is None else state.job.deadline_s, state.number)

    def decide(self, view: View) -> Decisions:
        """Plan the admitted, admit or refuse the new ones, start what the plan begins now."""
        now = view.now_s
        admitted: set[int] = view.memory.setdefault("admitted", set())
        timely = [state for state in view.waiting if state.job.deadline_s is not None]
        known = [state for state in timely if state.number in admitted]
        for state in sorted(timely, key=lambda state: state.number):
            if state.number in admitted:
                continue
            trial = sorted([*known, state], key=self.key)
            if self._holds(view, trial, admitted | {state.number}):
                admitted.add(state.number)
                known = trial
            else:
                yield Cancel(state)
        plan = self._plan(view)
        others = [state for state in view.waiting if state.job.deadline_s is None]
        for state in [*known, *others]:
            found = fit(plan, state, now, self.exponent)
            if found is None:
                found = self._late(plan, state, now)
            if found and found[0] <= now:
                yield Start(state, found[1])

    def _holds(self, view: View, states: Sequence[JobState], admitted: set[int]) -> bool:
        """Whether everybody's deadline is kept; one who is late already does not count."""
        plan, now = self._plan(view), view.now_s
        newest = max(states, key=lambda state: state.number).number
        for state in states:
            if fit(plan, state, now, self.exponent) is None:
                hopeless = state.number != newest and self._alone_late(state, now)
                if not hopeless:
                    return False
                self._late(plan, state, now)
        return bool(admitted)

    def _alone_late(self, state: JobState, now_s: float) -> bool:
        """Whether it could not be in time even alone on all it can use."""
        deadline_s = math.inf if state.job.deadline_s is None else state.job.deadline_s
        return now_s + expected_s(state, most(state), self.exponent) > deadline_s

    def _late(self, plan: Plan, state: JobState, now_s: float) -> tuple[float, int] | None:
        """The first place for a job whose deadline no longer counts, on what it asked for."""
        gpus = state.job.gpus
        lasts_s = expected_s(state, gpus, self.exponent)
        start_s = plan.earliest(gpus, lasts_s, now_s)
        if math.isinf(start_s):
            return None
        plan.change(-gpus, start_s, start_s + lasts_s)
        return start_s, gpus

    def _plan(self, view: View) -> Plan:
        now = view.now_s
        plan = Plan(view.free_gpus, now)
        for state in view.running:
            end_s = state.limit_end_s if math.isfinite(state.limit_left_s) else state.end_s
            plan.change(state.gpus, max(end_s, now + SOON_S), math.inf)
        return plan
