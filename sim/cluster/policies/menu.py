"""The menu: policies by the names that scenarios and traces use."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sim.cluster.policies.conservative import Conservative, ConservativeCompress
from sim.cluster.policies.easy import Easy
from sim.cluster.policies.order import EarliestDeadline, Fifo, Priority, Sjf
from sim.cluster.policies.preemptive import PriorityPreempt, Srtf, Tiresias
from sim.cluster.policies.shares import Drf, FairShare
from sim.cluster.policy import Policy

POLICIES: Mapping[str, Callable[[Mapping[str, float]], Policy]] = {
    "fifo": lambda weights: Fifo(),
    "sjf": lambda weights: Sjf(),
    "priority": lambda weights: Priority(),
    "edf": lambda weights: EarliestDeadline(),
    "srtf": lambda weights: Srtf(),
    "priority_preempt": lambda weights: PriorityPreempt(),
    "tiresias": lambda weights: Tiresias(),
    "easy": lambda weights: Easy(),
    "easy_sjbf": lambda weights: Easy("shortest", name="easy_sjbf"),
    "conservative": lambda weights: Conservative(),
    "conservative_compress": lambda weights: ConservativeCompress(),
    "fairshare": lambda weights: FairShare(weights),
    "drf": lambda weights: Drf(weights),
}
"""Name -> maker; weights (by group) matter to policies that share."""
