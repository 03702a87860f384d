"""What the engine knows about one job that has been handed in and is not yet through.

A ``JobState`` is the card on the dispatcher's board: the job itself, how much of it is left, and, while it runs,
where and
since when. Policies read cards and never write on them; only the engine does.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from sim.cluster.recovery import Recovery
from sim.results.cluster_log import Placed
from sim.spec.job import Job


class Piece(NamedTuple):
    """A part of a stretch at one speed, until the next piece begins."""

    begin_s: float
    """Useful seconds of the stretch when it begins."""
    done: float
    """Work done by then, as seconds on the devices asked for."""
    rate: float
    """Work a second from then on."""
    links_s: float = 0.0
    """Of the useful seconds until then, those that shared links cost."""
    devices_s: float = 0.0
    """Those that neighbours on the same devices cost."""
    links_frac: float = 0.0
    """Share of each useful second from then on that links cost."""
    devices_frac: float = 0.0


NOWHERE = Placed(-1, (), ())
"""The place of a job that holds nothing."""


class JobState:
    """One job between its submission and its end; times in seconds of the run."""

    __slots__ = (
        "alone_rate",
        "attained_gpu_s",
        "end_s",
        "ending",
        "entry",
        "failures",
        "fault_s",
        "first_start_s",
        "gpus",
        "group",
        "job",
        "limit_left_s",
        "limited",
        "number",
        "owed_s",
        "pace",
        "placed",
        "preemptions",
        "queued",
        "queued_s",
        "ran_s",
        "rate",
        "recovery",
        "running",
        "running_entry",
        "since_s",
        "stretch",
        "waits",
        "work_left_s",
    )

    def __init__(self, job: Job, number: int, group: str = "") -> None:
        self.job = job
        self.number = number
        """Place in the order of submission, from 0."""
        self.gpus: int = job.gpus
        """Devices it holds, or asks for while it waits."""
        self.work_left_s: float = job.duration_s
        """Useful work that is left, as seconds on the devices asked for, at the start of this stretch."""
        self.owed_s = 0.0
        """Overhead of preemption that stands before the useful work of the next stretch."""
        self.queued: int
        """Place in the order of joining the queue; a job that comes back gets a new one."""
        self.queued_s = 0.0
        self.group = group
        self.entry: tuple[Any, int, JobState]
        """Its card in the queue: key, number, itself; the last one, while it runs."""
        self.running_entry: tuple[Any, int, JobState]
        self.limit_left_s = math.inf if job.limit_s is None else job.limit_s
        """Time it may still run by its limit, at the start of this stretch; infinite without a limit."""
        self.limited = False
        """Whether its limit ends this stretch before its work is done."""
        self.waits = False
        self.running = False
        self.since_s: float
        """Start of this stretch."""
        self.end_s: float
        """When this stretch will end by itself: known to clairvoyant policies only."""
        self.recovery: Recovery
        """What it keeps of this stretch when it is interrupted."""
        self.rate: float
        """Useful seconds a second here and now."""
        self.alone_rate: float
        """The same if nobody shared links or devices with it."""
        self.pace: list[Piece] | None = None
        """Where neighbours changed its rate within this stretch, in order; see ``sim.cluster.pace``."""
        self.stretch = 0
        """How often it has started."""
        self.placed = NOWHERE
        self.fault_s = math.inf
        """When it was hit by a fault that nobody has noticed yet."""
        self.ending: Any = None
        self.attained_gpu_s = 0.0
        self.ran_s = 0.0
        """Time it has run since it last began from its queue after a failure (counts against its limit)."""
        self.first_start_s: float | None = None
        self.preemptions = 0
        self.failures = 0

    @property
    def submit_s(self) -> float:
        """When it was handed in."""
        return self.job.submit_s

    @property
    def restarted(self) -> bool:
        """Whether this stretch is not its first."""
        return self.stretch > 1

    @property
    def duration_s(self) -> float:
        """Its true duration (clairvoyant)."""
        return self.job.duration_s

    @property
    def limit_end_s(self) -> float:
        """When this stretch ends at the latest, by its limit: what a scheduler can know."""
        return self.since_s + self.limit_left_s

    def remaining_s(self, now_s: float) -> float:
        """Time on devices until it is done, overhead included (clairvoyant)."""
        return self.end_s - now_s if self.running else self.work_left_s + self.owed_s

    def attained_until(self, now_s: float) -> float:
        """Device-seconds it has held so far, whatever came of them."""
        held = self.gpus * (now_s - self.since_s) if self.running else 0.0
        return self.attained_gpu_s + held

    def __repr__(self) -> str:
        return f"JobState({self.job.name!r}, gpus={self.gpus}, {'running' if self.running else 'waiting'})"
