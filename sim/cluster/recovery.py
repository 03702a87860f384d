"""What a job keeps when it is interrupted.

Checkpoints are bookmarks: after a fall one reads on from the last of them. The engine never plays single checkpoints;
it asks these closed forms how long a stretch takes and how much of it would survive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class Progress(NamedTuple):
    """Where the time of an interrupted stretch went; ``useful_s + checkpoint_s + restart_s`` is the stretch."""

    useful_s: float
    """Work done, saved or not."""
    durable_s: float
    """Work that a restart need not do again."""
    checkpoint_s: float
    restart_s: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """Checkpoints and restarts of one job.

    interval_s: work between two writes (infinite = never writes). stall_s: time each write stops the job. durable_s:
    from the start of a write until it survives a failure (equal to ``stall_s`` for a blocking write). restart_s: from
    getting its devices back until useful work goes on.
    """

    interval_s: float = math.inf
    stall_s: float = 0.0
    durable_s: float = 0.0
    restart_s: float = 0.0

    def wall_s(self, work_s: float, *, restarted: bool = False) -> float:
        """Time a stretch needs to get ``work_s`` done, its writes included (none at the very end)."""
        writes = 0 if math.isinf(self.interval_s) else max(math.ceil(work_s / self.interval_s) - 1, 0)
        return work_s + writes * self.stall_s + (self.restart_s if restarted else 0.0)

    def progress(self, ran_s: float, *, restarted: bool = False) -> Progress:
        """What had been done when a stretch was cut after ``ran_s``."""
        restart = min(self.restart_s, ran_s) if restarted else 0.0
        ran = ran_s - restart
        if math.isinf(self.interval_s):
            return Progress(ran, 0.0, 0.0, restart)
        cycle = self.interval_s + self.stall_s
        whole, rest = divmod(ran, cycle)
        useful = whole * self.interval_s + min(rest, self.interval_s)
        checkpoint = ran - useful
        begun = whole + (1 if rest > self.interval_s else 0)  # writes that have begun
        lasting = begun
        # the write of bookmark k begins at k * cycle - stall and survives from durable_s on
        while lasting > 0 and (lasting * cycle - self.stall_s) + self.durable_s > ran:
            lasting -= 1
        return Progress(useful, lasting * self.interval_s, checkpoint, restart)


NEVER = Recovery()
"""No checkpoints: what is interrupted starts again from nothing."""
