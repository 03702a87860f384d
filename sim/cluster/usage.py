"""Who holds how much and has used how much: the meter of every queue, user or account.

Usage decays like a fading memory when a half-life is given: Slurm's PriorityDecayHalfLife
(slurm.schedmd.com/priority_multifactor.html).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sim.cluster.queue import Waiting
from sim.cluster.state import JobState


class Group:
    """One meter, and the jobs of the group that wait."""

    __slots__ = ("cpus", "gpus", "memory_bytes", "name", "since_s", "used_gpu_s", "waiting")

    def __init__(self, name: str, key: Callable[[JobState], Any]) -> None:
        self.name = name
        self.gpus = 0.0
        """Devices held now."""
        self.cpus = 0.0
        self.memory_bytes = 0.0
        self.used_gpu_s = 0.0
        self.since_s = 0.0
        self.waiting = Waiting(key)


class Usage:
    """Meters by group name; what has been used is brought up to date when it is read."""

    __slots__ = ("_decay", "_key", "groups")

    def __init__(self, key: Callable[[JobState], Any], half_life_s: float = math.inf) -> None:
        self.groups: dict[str, Group] = {}
        self._key = key
        self._decay = 0.0 if math.isinf(half_life_s) else math.log(2) / half_life_s

    def of(self, name: str) -> Group:
        """The meter of a group, new where there is none."""
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group(name, self._key)
        return group

    def used_gpu_s(self, name: str, now_s: float) -> float:
        """Device-seconds used until now, decayed."""
        group = self.of(name)
        passed = now_s - group.since_s
        if passed:
            if self._decay:
                kept = math.exp(-self._decay * passed)
                # constant use h over dt decays to h (1 - e^(-k dt)) / k
                group.used_gpu_s = group.used_gpu_s * kept + group.gpus * (1 - kept) / self._decay
            else:
                group.used_gpu_s += group.gpus * passed
            group.since_s = now_s
        return group.used_gpu_s

    def hold(self, state: JobState, sign: int, now_s: float) -> None:
        """A job takes (+1) or gives back (-1) what it holds."""
        self.used_gpu_s(state.group, now_s)
        group = self.groups[state.group]
        job = state.job
        group.gpus += sign * state.gpus * job.gpu_share_frac
        group.cpus += sign * job.cpus
        group.memory_bytes += sign * job.memory_bytes
