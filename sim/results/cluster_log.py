"""The log of a cluster run and its books.

The log is the ship's diary: stretches in which jobs held devices, what became of each job, and when nodes were away.
The
books are made from it: every device-second owned has exactly one cause, and the causes add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

CAUSES = (
    "useful",
    "checkpoint",
    "lost",
    "restart",
    "preemption_overhead",
    "undetected_fault",
    "contention",
    "interference",
    "down",
    "idle_nobody_waits",
    "idle_though_jobs_wait",
)
"""Where a device-second can go. The last is the price of fragmentation and of the policy."""


class Placed(NamedTuple):
    """Devices of a gang."""

    pool: int
    spots: tuple[tuple[int, int], ...]
    """(node, devices there) pairs; nodes are numbered through all pools."""
    devices: tuple[int, ...]
    """Device numbers on the node where devices are shared by fractions; otherwise empty, for devices of a node are
    alike."""


class Segment(NamedTuple):
    """One stretch in which one job held devices; the eight parts in seconds add up to ``end_s - start_s``."""

    job: str
    number: int
    """Place in the order of submission."""
    gpus: float
    """Devices held, as a fraction where a device is shared."""
    start_s: float
    end_s: float
    placed: Placed
    why: str
    """Why it ended: completed, preempted, resized, failed, timeout, or open (at the end of the run)."""
    useful_s: float
    checkpoint_s: float
    lost_s: float
    restart_s: float
    overhead_s: float
    undetected_s: float
    contention_s: float = 0.0
    """What shared links cost a job whose work is kept: useful seconds that it would not have needed alone."""
    interference_s: float = 0.0
    """The same of neighbours on its devices."""


class JobRecord(NamedTuple):
    """What became of one job."""

    job: str
    number: int
    gpus: int
    submit_s: float
    start_s: float | None
    """First start."""
    end_s: float | None
    wait_s: float
    """All time in the queue, after preemptions too."""
    preemptions: int
    failures: int
    outcome: str
    """completed, timeout, refused (can never fit), waiting or running (at the end of the run)."""
    user: str
    queue: str


class Downtime(NamedTuple):
    """One node away."""

    node: int
    start_s: float
    end_s: float
    cause: str


class Sink:
    """Where an engine writes its log, row by row; this one keeps everything in memory.

    A sink that writes to disk overrides ``segment`` and ``record``: then memory does not grow with the trace.
    """

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.records: list[JobRecord] = []
        self.segment = self.segments.append
        self.record = self.records.append


@dataclass(frozen=True, slots=True)
class ClusterLog:
    """What a run leaves behind; segments and records are empty where a sink of the caller took them."""

    devices: int
    span_s: float
    segments: Sequence[Segment]
    records: Sequence[JobRecord]
    downtimes: Sequence[Downtime]
    down_gpu_s: float
    idle_nobody_waits_gpu_s: float
    idle_though_jobs_wait_gpu_s: float
    waiting_job_s: float
    """Time integral of the number of waiting jobs (Little's law holds it to the sum of waits)."""
    passes: int
    start_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Books:
    """Device-seconds by cause."""

    owned_gpu_s: float
    by_cause: dict[str, float] = field(default_factory=dict)

    @property
    def gap_frac(self) -> float:
        """What the causes miss or count twice, as a share of what is owned; 0 but for rounding."""
        gap = math.fsum(self.by_cause.values()) - self.owned_gpu_s
        return abs(gap) / self.owned_gpu_s if self.owned_gpu_s else abs(gap)

    @property
    def useful_frac(self) -> float:
        """Goodput: share of owned device-time that became work which was kept."""
        return self.by_cause["useful"] / self.owned_gpu_s if self.owned_gpu_s else 0.0


_FOLD = 100_000
"""Segments added up at once; each adding rounds once."""
_PARTS = tuple(
    (cause, attrgetter(part))
    for cause, part in (
        ("checkpoint", "checkpoint_s"),
        ("lost", "lost_s"),
        ("restart", "restart_s"),
        ("preemption_overhead", "overhead_s"),
        ("undetected_fault", "undetected_s"),
        ("contention", "contention_s"),
        ("interference", "interference_s"),
    )
)
"""Causes other than useful work, and the part of a segment that each takes."""


def account(log: ClusterLog, segments: Iterable[Segment] | None = None) -> Books:
    """Books of a run, from its log; ``segments`` = those a sink of the caller kept.

    No cause is found by subtraction, so ``gap_frac`` is a true check.
    """
    sums: dict[str, list[float]] = {cause: [] for cause in CAUSES}
    rows = iter(log.segments if segments is None else segments)
    # by chunks: a log read from disk must not come to stand in memory here
    while chunk := list(islice(rows, _FOLD)):
        sums["useful"].append(math.fsum([row.gpus * row.useful_s for row in chunk]))
        mixed = [row for row in chunk if row.useful_s != row.end_s - row.start_s]
        for cause, part in _PARTS:
            sums[cause].append(math.fsum([row.gpus * part(row) for row in mixed]))
    sums["down"].append(log.down_gpu_s)
    sums["idle_nobody_waits"].append(log.idle_nobody_waits_gpu_s)
    sums["idle_though_jobs_wait"].append(log.idle_though_jobs_wait_gpu_s)
    return Books(log.devices * log.span_s, {cause: math.fsum(values) for cause, values in sums.items()})
