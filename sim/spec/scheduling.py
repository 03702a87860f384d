"""How a cluster is run and how long it is watched: the [policy] and [study] sections.

The house rules and the visiting hours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.spec.fields import choice, count, quantity, switch, text

POLICIES = (
    "fifo",
    "sjf",
    "srtf",
    "priority",
    "priority-preempt",
    "easy",
    "conservative",
    "conservative-compress",
    "fair-share",
    "drf",
    "tiresias",
    "edf",
)
PLACEMENTS = ("packed", "spread", "anywhere", "tiers")
ORDERS = ("submit", "shortest", "longest", "narrowest", "widest")
LEVELS = ("low", "mid", "high", "draw")


@dataclass(frozen=True, slots=True)
class Scheduling:
    """Who goes next, where to, and what that costs."""

    name: str = choice(POLICIES, "the rule by which waiting jobs start", "easy")
    function: str = text("own policy as file.py:function instead of a name; see docs/policies.md", "")
    placement: str = choice(PLACEMENTS, "where a gang goes", "packed")
    order: str = choice(ORDERS, "who may slip past the head in backfilling", "submit")
    by: str = choice(("queue", "user"), "whose share counts in fair sharing", "queue")
    weights: Mapping[str, float] = field(
        default_factory=dict,
        hash=False,
        metadata={"meaning": "weight by queue or user", "low": 0.0, "above": True},
    )
    half_life_s: float = quantity(
        "half-life of the usage that fair share remembers; inf = all", math.inf, above=True
    )
    thresholds_gpu_s: tuple[float, ...] = quantity(
        "device-seconds between the levels of tiresias", (18_000.0,)
    )
    kill_at_limit: bool = switch("jobs are ended at their time limit", True)
    preemption_overhead_s: float = quantity("time a preempted job loses when it runs again", 60.0)


@dataclass(frozen=True, slots=True)
class Study:
    """How long to watch and how sure to be."""

    span_s: float = quantity("time that is simulated", 30 * 86400.0, above=True)
    warm_up_s: float = quantity("time at the start that the statistics of jobs leave out", 0.0)
    warm_up: str = choice(("given", "auto"), "auto = found by MSER-5 instead", "given")
    precision_frac: float = quantity(
        "half-width of the 95 % intervals over their means at which to stop", 0.05, above=True
    )
    least: int = count("replications at least", 3, low=2)
    most: int = count("replications at most", 12, low=2, high=10_000)
    failures: str = choice(
        LEVELS, "which failure rate to take; draw = another one each time, low and high as P10 and P90", "mid"
    )
