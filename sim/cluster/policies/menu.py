"""The menu: policies by the names that scenarios use, made from the [policy] section."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sim.cluster.policies.conservative import Conservative, ConservativeCompress
from sim.cluster.policies.deadline import Deadline
from sim.cluster.policies.easy import Easy
from sim.cluster.policies.elastic import Elastic
from sim.cluster.policies.gavel import Gavel
from sim.cluster.policies.multifactor import Multifactor
from sim.cluster.policies.order import EarliestDeadline, Fifo, Priority, Sjf
from sim.cluster.policies.preemptive import PriorityPreempt, Srtf, Tiresias
from sim.cluster.policies.quota import Quotas
from sim.cluster.policies.shares import Drf, FairShare
from sim.cluster.policy import Policy
from sim.spec.scheduling import Scheduling

_MADE: Mapping[str, Callable[[Scheduling], Policy]] = {
    "fifo": lambda _: Fifo(),
    "sjf": lambda _: Sjf(by_limit=True),
    "srtf": lambda _: Srtf(),
    "priority": lambda _: Priority(),
    "priority-preempt": lambda _: PriorityPreempt(),
    "easy": lambda asked: Easy(order=asked.order),
    "conservative": lambda _: Conservative(),
    "conservative-compress": lambda _: ConservativeCompress(),
    "multifactor": lambda asked: Multifactor(
        asked.multifactor, {one.name: one for one in asked.accounts}, asked.weights, asked.half_life_s
    ),
    "fair-share": lambda asked: FairShare(asked.weights, asked.by, half_life_s=asked.half_life_s),
    "drf": lambda asked: Drf(asked.weights, asked.by),
    "tiresias": lambda asked: Tiresias(asked.thresholds_gpu_s),
    "edf": lambda _: EarliestDeadline(),
    "quota": lambda asked: Quotas({rule.name: rule for rule in asked.quotas}),
    "gavel": lambda asked: Gavel(asked.weights, asked.round_s),
    "elastic": lambda asked: Elastic(asked.scaling_exponent, asked.round_s),
    "deadline": lambda asked: Deadline(asked.scaling_exponent),
}


def policy_named(asked: Scheduling) -> Policy:
    """The policy of ``asked.name`` with its knobs; the section's checks keep other names out (``KeyError``)."""
    return _MADE[asked.name](asked)


POLICIES: Mapping[str, Policy] = {name: policy_named(Scheduling(name)) for name in _MADE}
"""Name -> policy with its defaults."""
