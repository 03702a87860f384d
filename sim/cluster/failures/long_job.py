"""A large job that runs for months, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sim.cluster.recovery import Recovery
from sim.spec.reliability import Spares


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
    """Its time by cause (``sim.cluster.failures.job_books.PARTS``); adds up to the span."""
    finished: bool
    interruptions: Mapping[str, int]
    """Times it was struck, by cause; also while it hung for an earlier one."""
    speed_frac: float
    """Mean speed while under way, full speed = 1."""

    @property
    def goodput_frac(self) -> float:
        """Share of the span that became work that lasts."""
        return self.parts_s["productive"] / self.span_s if self.span_s else 1.0
