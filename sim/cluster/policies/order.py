"""Strict orders: the head of the queue starts or everybody behind it waits, as at a bakery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sim.cluster.policy import Policy
from sim.cluster.state import JobState


@dataclass(frozen=True)
class Fifo(Policy):
    """First come, first served: order of submission; a head that does not fit blocks (Kleinrock, Queueing Systems
    I)."""

    name: str = "fifo"


@dataclass(frozen=True)
class Sjf(Policy):
    """Shortest job first, without preemption (Phipps, Operations Research 4, 1956), by true durations or by limits."""

    by_limit: bool = False
    name: str = "sjf"

    @property
    def clairvoyant(self) -> bool:  # type: ignore[override]
        """By true durations it knows what no scheduler knows."""
        return not self.by_limit

    def key(self, state: JobState) -> Any:
        """Time it still needs."""
        return state.limit_left_s if self.by_limit else state.work_left_s + state.owed_s


@dataclass(frozen=True)
class Priority(Policy):
    """Largest priority first, no preemption (head of the line: Cobham, Operations Research 2, 1954)."""

    name: str = "priority"

    def key(self, state: JobState) -> Any:
        """Larger goes first."""
        return -state.job.priority


@dataclass(frozen=True)
class EarliestDeadline(Policy):
    """Earliest deadline first (Jackson 1955; Liu and Layland, JACM 20, 1973); jobs without one come last."""

    name: str = "edf"

    def key(self, state: JobState) -> Any:
        """Deadline, none last."""
        deadline_s = state.job.deadline_s
        return float("inf") if deadline_s is None else deadline_s
