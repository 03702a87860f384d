"""The rules of the house: what every policy plays under.

Which events come first, what a preemption costs, what a job keeps after a fault, how fast it runs where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sim.cluster.recovery import NEVER, Recovery

if TYPE_CHECKING:
    from sim.cluster.state import JobState
    from sim.results.cluster_log import Placed
    from sim.spec.job import Job


class Hazard(NamedTuple):
    """A fault that a job meets by itself (a bug, a bad batch, a hang)."""

    after_s: float
    """From the start of the stretch."""
    detect_s: float = 0.0


class Contention(Protocol):
    """Running jobs that slow each other down on what they share (links, devices)."""

    def join(self, state: JobState) -> None:
        """A job has started; ``state.placed`` says where."""

    def leave(self, state: JobState) -> None:
        """It is about to give its place back."""

    def changed(self) -> Mapping[int, float]:
        """By job number, the share (0 to 1) of its rate alone that each job has whose share may have changed since this
        was last asked."""

    def by_links_frac(self, number: int) -> float:
        """Of what this job loses now, the part that is lost to shared links; the rest is lost to neighbours on its
        devices."""


def free_of_charge(job: Job) -> float:
    """No overhead."""
    del job
    return 0.0


def no_checkpoints(job: Job) -> Recovery:
    """Every job starts again from nothing after a fault."""
    del job
    return NEVER


def durable_alone(state: JobState, until_s: float) -> str:
    """Faults leave nothing but durable checkpoints."""
    del state, until_s
    return "durable"


def linear_rate(state: JobState, gpus: int, speed: float, placed: Placed) -> float:
    """Useful seconds a second: in proportion to devices and to their speed (assumed; give a measured curve instead)."""
    del placed
    asked = state.job.gpus
    return speed if gpus == asked or not asked else speed * gpus / asked


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of a run; the defaults are: completions, then submissions, then one pass; no overheads, no faults."""

    one_pass: bool = True
    """One pass when all events of an instant are in; otherwise a pass after every single event."""
    completions_first: bool = True
    """Whether ends of jobs come before submissions in the same instant (matters only for a pass after every event)."""
    preemption_overhead_s: Callable[[Job], float] = free_of_charge
    """Time a preempted job needs, when it runs again, before useful work goes on."""
    preemption_keeps_all: bool = True
    """A preempted job is suspended or saves itself first; otherwise it keeps its last durable checkpoint alone."""
    resize_overhead_s: Callable[[Job], float] = free_of_charge
    kill_at_limit: bool = False
    """Jobs are ended at their time limit."""
    recovery: Callable[[Job], Recovery] = no_checkpoints
    rate: Callable[[JobState, int, float, Placed], float] = linear_rate
    """(job, devices, speed of the pool, place) -> useful seconds a second: speed-up when resized, slow-down by
    placement."""
    hazard: Callable[[JobState], Hazard | None] | None = None
    """Asked at the start of every stretch."""
    contention: Contention | None = None
    """Who slows whom; holds the state of one run, so it is made anew for each."""
    survives: Callable[[JobState, float], str] = durable_alone
    """(failed job, until when) -> what of its stretch is kept: ``durable``, ``memory`` or (after notice) ``all``."""
    decisions_per_pass: int = 100
    """A policy that makes more decisions in one pass than this many a job (waiting or running) goes in circles."""
    seconds_per_decision: float = 10.0
    """On the clock of the wall, for a policy of the user's own: beyond it the policy is said to hang."""
