"""From a plan to save (``[reliability.checkpoints]``) and the wires it goes over to the times of a :class:`Recovery`.

Like planning backups: how large is it, how fast is the wire when all others write too, how often is worth it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sim.cluster.recovery import MemoryTier, Recovery
from sim.cost.goodput import daly_interval_s, goodput_two_tier_frac, optimal_interval_s, young_interval_s
from sim.cost.storage import Storage, read_s, write_s
from sim.spec.reliability import Checkpointing

MOST_SNAPSHOTS = 10_000
"""Snapshots between two durable writes that are looked at."""


@dataclass(frozen=True, slots=True)
class SavedState:
    """What one job saves, and over which wires."""

    state_bytes: float
    """Weights and optimizer state of the whole job, once."""
    writers: int
    """Clients that write (and read) equal parts of it."""
    storage: Storage
    jobs_at_once: int = 1
    """Equal jobs that write in the same moment and share the storage (contention); 1 = alone."""
    host_bytes_per_s: float = math.inf
    """Device to host memory, one writer."""
    peer_bytes_per_s: float = math.inf
    """Host memory to another node's, one writer."""

    @property
    def write_s(self) -> float:
        """One durable write."""
        return float(write_s(self.storage, self.state_bytes / self.writers, self.writers * self.jobs_at_once))

    @property
    def read_s(self) -> float:
        """Loading it back, alone."""
        return float(read_s(self.storage, self.state_bytes / self.writers, self.writers))

    @property
    def copy_s(self) -> float:
        """Copying it to host memory."""
        return self.state_bytes / self.writers / self.host_bytes_per_s

    @property
    def send_s(self) -> float:
        """Sending it to other nodes' memory, or fetching it from there."""
        return self.state_bytes / self.writers / self.peer_bytes_per_s


def recovery_for(
    plan: Checkpointing, state: SavedState, mean_s: float, *, memory_frac: float = 0.0
) -> Recovery:
    """The times of this plan for a job that fails every ``mean_s`` on average.

    A blocking write stops the job until it is durable; an asynchronous one for the copy to the host, and the next one
    does not begin before it is durable. A snapshot stops the job for the copy to the host and on to the other nodes
    (none of it hidden: cautious). ``memory_frac`` is the share of failures that snapshots help; the durable interval is
    then a whole number of snapshots, with rule = optimal the best in the exact two-tier form, else by the rule for the
    other failures alone. Restart = requeue + loading + warm-up; detection comes with the outage, the swap of nodes with
    the spares.

    Raises:
        ValueError: rule = fixed without an interval.
    """
    restart = plan.requeue_s + plan.warm_up_s
    if plan.kind == "none":
        return Recovery(restart_s=restart)
    blocking = plan.kind == "blocking"
    stall = state.write_s if blocking else state.copy_s
    durable = state.write_s if blocking else state.copy_s + state.write_s
    reload = restart + state.read_s
    if plan.memory_interval_s is None:
        return Recovery(max(_interval_s(plan, mean_s, stall), durable - stall), stall, durable, reload)
    step = plan.memory_interval_s
    memory = MemoryTier(step, state.copy_s + state.send_s, restart + state.send_s, plan.memory_node_losses)
    least = max(math.ceil((durable - stall) / step), 1)
    if plan.rule == "optimal":
        down = {"memory_frac": memory_frac, "memory_down_s": memory.restart_s, "durable_down_s": reload}
        every = _largest(
            lambda count: goodput_two_tier_frac(mean_s, step, memory.stall_s, stall, count, **down), least
        )
    else:
        needing = mean_s / (1 - memory_frac) if memory_frac < 1 else math.inf
        every = max(round(min(_interval_s(plan, needing, stall) / step, MOST_SNAPSHOTS)), least)
    return Recovery(every * step, stall, durable, reload, memory=memory)


def _largest(value: Callable[[int], float], least: int) -> int:
    """The whole number from ``least`` to :data:`MOST_SNAPSHOTS` with the largest value; one hill."""
    low, high = least, least + 1
    while high < MOST_SNAPSHOTS and value(high) > value((low + high) // 2):
        high = min(2 * high, MOST_SNAPSHOTS)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if value(middle + 1) > value(middle) else (low, middle)
    return low


def _interval_s(plan: Checkpointing, mean_s: float, stall_s: float) -> float:
    if plan.rule == "fixed":
        if plan.interval_s is None:
            raise ValueError("rule = 'fixed' needs interval_s")
        return plan.interval_s
    rule = {"optimal": optimal_interval_s, "young": young_interval_s, "daly": daly_interval_s}[plan.rule]
    return max(float(rule(mean_s, stall_s)), 1e-9)
