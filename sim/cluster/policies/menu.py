"""The menu: policies by the names that scenarios and traces use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sim.cluster.policies.conservative import Conservative, ConservativeCompress
from sim.cluster.policies.deadline import Deadline
from sim.cluster.policies.easy import BACKFILLS, Easy
from sim.cluster.policies.elastic import Elastic
from sim.cluster.policies.gavel import Gavel
from sim.cluster.policies.order import EarliestDeadline, Fifo, Priority, Sjf
from sim.cluster.policies.preemptive import PriorityPreempt, Srtf, Tiresias
from sim.cluster.policies.quota import Quotas
from sim.cluster.policies.shares import Drf, FairShare
from sim.cluster.policy import Policy
from sim.spec.scheduling import QuotaRule

POLICIES: Mapping[str, Policy] = {
    "fifo": Fifo(),
    "sjf": Sjf(),
    "priority": Priority(),
    "edf": EarliestDeadline(),
    "srtf": Srtf(),
    "priority_preempt": PriorityPreempt(),
    "tiresias": Tiresias(),
    "easy": Easy(),
    "easy_sjbf": Easy("shortest", name="easy_sjbf"),
    "conservative": Conservative(),
    "conservative_compress": ConservativeCompress(),
    "fairshare": FairShare(),
    "drf": Drf(),
    "quota": Quotas(
        {
            "all": QuotaRule("all"),
            "a": QuotaRule("a", "all", 16.0, within="lower-priority"),
            "b": QuotaRule("b", "all", 16.0, lend_limit_gpus=4.0),
        }
    ),
    "gavel": Gavel(),
    "elastic": Elastic(),
    "deadline": Deadline(),
}
"""Name -> policy, with its defaults."""
MORE: Mapping[str, Policy] = {**BACKFILLS, "conservative_rebuild": Conservative()}
"""Other names that traces use: every order of backfilling, and what sets one conservative backfill off the other."""


def policy_named(name: str, weights: Mapping[str, float] | None = None) -> Policy:
    """A policy of the menu or of ``MORE``; weights (by group) go to those that share.

    Raises ``KeyError`` for an unknown name.
    """
    policy = POLICIES[name] if name in POLICIES else MORE[name]
    return replace(policy, weights=weights) if weights and isinstance(policy, FairShare | Drf) else policy
