"""Fair shares: the group that has had least for its weight offers its oldest job, as plates go round a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.cluster.policy import Decisions, Policy, Start, View
from sim.cluster.state import JobState
from sim.cluster.usage import Group


@dataclass(frozen=True)
class _Sharing(Policy):
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weight by group; groups without one have 1."""
    by: str = "queue"
    """Whose share: ``queue`` or ``user``."""
    name: str = "sharing"
    metered: bool = True
    grouped: bool = True

    def group(self, state: JobState) -> str:
        """Queue or user."""
        return state.job.user if self.by == "user" else state.job.queue

    def weight(self, group: Group) -> float:
        """Weight of a group."""
        return self.weights.get(group.name, 1.0)

    def share(self, view: View, group: Group) -> Any:
        """What is compared: the smallest goes next."""
        raise NotImplementedError

    def decide(self, view: View) -> Decisions:
        """Again and again the group with the smallest share; one whose job does not fit sits this pass out."""
        sitting = {group.name: group for group in view.usage.groups.values() if len(group.waiting)}
        while sitting:
            group = min(sitting.values(), key=lambda group: self.share(view, group))
            oldest = group.waiting.first
            if oldest is None or not (yield Start(oldest)) or not len(group.waiting):
                del sitting[group.name]


@dataclass(frozen=True)
class FairShare(_Sharing):
    """Smallest usage / weight first, usage in device-seconds, halved every ``half_life_s`` where one is given.

    With a half-life this is the order that Slurm's classic fair-share factor 2^(-(U/S)/d) gives
    (slurm.schedmd.com/classic_fair_share.html), for that factor falls with U/S.
    """

    half_life_s: float = math.inf
    name: str = "fair-share"

    def share(self, view: View, group: Group) -> Any:
        """Used, then held, for the weight."""
        weight = self.weight(group)
        return (view.usage.used_gpu_s(group.name, view.now_s) / weight, group.gpus / weight, group.name)


@dataclass(frozen=True)
class Drf(_Sharing):
    """Dominant resource fairness: the smallest max over resources of (held / owned) / weight goes next
    (Ghodsi et al., NSDI 2011). Resources: devices, and CPU cores and memory where their totals are given."""

    total_cpus: float = 0.0
    total_memory_bytes: float = 0.0
    name: str = "drf"

    def share(self, view: View, group: Group) -> Any:
        """Dominant share for the weight."""
        dominant = group.gpus / view.total_gpus if view.total_gpus else 0.0
        if self.total_cpus:
            dominant = max(dominant, group.cpus / self.total_cpus)
        if self.total_memory_bytes:
            dominant = max(dominant, group.memory_bytes / self.total_memory_bytes)
        return (dominant / self.weight(group), group.name)
