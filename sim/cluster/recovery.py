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
    """Work that no restart need do again; 0 = nothing was saved for good since the stretch began."""
    checkpoint_s: float
    restart_s: float


@dataclass(frozen=True, slots=True)
class MemoryTier:
    """Snapshots in other nodes' memory between durable writes (Wang et al. 2023, GEMINI, SOSP).

    interval_s: work between two snapshots, a whole part of the durable interval. stall_s: time each stops the job.
    restart_s: from getting its devices back until work goes on. node_losses: nodes that may be lost at once with every
    snapshot still whole (0 = only failures of the job itself are helped).
    """

    interval_s: float
    stall_s: float = 0.0
    restart_s: float = 0.0
    node_losses: int = 0


@dataclass(frozen=True, slots=True)
class Recovery:
    """Checkpoints and restarts of one job.

    interval_s: work between two writes (infinite = never writes). stall_s: time each write stops the job. durable_s:
    from the start of a write until it survives a failure (equal to ``stall_s`` for a blocking write). restart_s: from
    getting its devices back until useful work goes on. verify_s: first part of each stall, a check that finds silent
    errors of the work before it (0 = none). memory: a faster tier in between; its stall comes before the durable one
    where both fall together.
    """

    interval_s: float = math.inf
    stall_s: float = 0.0
    durable_s: float = 0.0
    restart_s: float = 0.0
    verify_s: float = 0.0
    memory: MemoryTier | None = None

    @property
    def cycle_s(self) -> float:
        """From one durable bookmark to the next."""
        return (
            self.interval_s + self._snapshots * (self.memory.stall_s if self.memory else 0.0) + self.stall_s
        )

    @property
    def _snapshots(self) -> int:
        return round(self.interval_s / self.memory.interval_s) if self.memory else 0

    def wall_s(self, work_s: float, *, restarted: bool = False, phase_s: float = 0.0) -> float:
        """Time a stretch needs to get ``work_s`` done, its writes included (none at the very end).

        ``phase_s`` is work done since the last durable bookmark when the stretch begins (after a restart from memory).
        """
        restart = self.restart_s if restarted else 0.0
        if math.isinf(self.interval_s) or math.isinf(work_s):
            return work_s + restart
        writes = max(math.ceil((phase_s + work_s) / self.interval_s) - 1, 0)
        extra = writes * self.stall_s
        if self.memory:
            step = self.memory.interval_s
            taken = max(math.ceil((phase_s + work_s) / step) - 1, 0) - round(phase_s / step)
            extra += max(taken, 0) * self.memory.stall_s
        return work_s + extra + restart

    def progress(self, ran_s: float, *, restarted: bool = False, phase_s: float = 0.0) -> Progress:
        """What had been done when a stretch was cut after ``ran_s``; ``phase_s`` as for :meth:`wall_s`."""
        restart = min(self.restart_s, ran_s) if restarted else 0.0
        ran = ran_s - restart
        if math.isinf(self.interval_s):
            return Progress(ran, 0.0, 0.0, restart)
        # count from the last durable bookmark: the work before the stretch and its snapshots come first
        before = self._wall_of_phase_s(phase_s)
        whole, rest = divmod(ran + before, self.cycle_s)
        useful = whole * self.interval_s + self._useful_in_cycle_s(rest) - phase_s
        lasting = self.bookmarks(ran, phase_s=phase_s)
        durable = lasting * self.interval_s - phase_s if lasting > 0 else 0.0
        return Progress(useful, durable, ran - useful, restart)

    def bookmarks(self, ran_s: float, *, phase_s: float = 0.0) -> int:
        """Durable bookmarks that a stretch of ``ran_s`` (its restart apart) has added."""
        if math.isinf(self.interval_s):
            return 0
        # the write of bookmark k begins at k * cycle - stall and survives from durable_s on
        since = ran_s + self._wall_of_phase_s(phase_s) + self.stall_s - self.durable_s
        return max(math.floor(since / self.cycle_s), 0)

    def in_memory_s(self, ran_s: float, *, phase_s: float = 0.0) -> float:
        """Work of a stretch cut after ``ran_s`` that a restart from memory need not do again; at least what is durable.

        0 without a memory tier, though a durable bookmark may hold more.
        """
        if self.memory is None:
            return 0.0
        whole, rest = divmod(ran_s + self._wall_of_phase_s(phase_s), self.cycle_s)
        return whole * self.interval_s + self._snapped_in_cycle_s(rest) - phase_s

    def undetected_s(self, ran_s: float, *, phase_s: float = 0.0) -> float | None:
        """From a silent error after ``ran_s`` of work and writes to the end of the check that finds it.

        None where the error fell into a write, when nothing is computed that it could spoil. Only with ``verify_s``.
        """
        rest = (ran_s + self._wall_of_phase_s(phase_s)) % self.cycle_s
        left = self.cycle_s - self.stall_s - rest
        return left + self.verify_s if left > 0 else None

    def _wall_of_phase_s(self, phase_s: float) -> float:
        stalls = round(phase_s / self.memory.interval_s) * self.memory.stall_s if self.memory else 0.0
        return phase_s + stalls

    def _useful_in_cycle_s(self, rest_s: float) -> float:
        if not self.memory:
            return min(rest_s, self.interval_s)
        step, stall = self.memory.interval_s, self.memory.stall_s
        done, part = divmod(rest_s, step + stall)
        return min(done * step + min(part, step), self.interval_s)

    def _snapped_in_cycle_s(self, rest_s: float) -> float:
        if not self.memory:
            return 0.0
        step = self.memory.interval_s
        return min(rest_s // (step + self.memory.stall_s), float(self._snapshots)) * step


NEVER = Recovery()
"""No checkpoints: what is interrupted starts again from nothing."""
