"""Play a trace on a cluster: the one door to the engine."""

from __future__ import annotations

import math
from collections.abc import Iterable

from sim.cluster.engine import Dispatcher
from sim.cluster.nodes import Ground, Nodes, Pool
from sim.cluster.outage import Outage
from sim.cluster.placement.whole import Packed
from sim.cluster.policy import Policy
from sim.cluster.rules import Rules
from sim.results.cluster_log import ClusterLog, Sink
from sim.spec.job import Job


def simulate(
    jobs: Iterable[Job],
    cluster: Ground | Iterable[Pool],
    policy: Policy,
    *,
    rules: Rules | None = None,
    outages: Iterable[Outage] = (),
    until_s: float = math.inf,
    start_s: float = 0.0,
    sink: Sink | None = None,
) -> ClusterLog:
    """Log of a run.

    ``jobs`` sorted by ``submit_s`` and ``outages`` sorted by ``at_s`` may be lazy: one of each is held at a time. A
    cluster
    given as pools uses the placement ``Packed``. The run ends when every job is through or at ``until_s``.

    Raises ``TraceError`` for a job that cannot be played and ``PolicyError`` for a policy that breaks the rules.
    """
    ground = Nodes(cluster, Packed()) if isinstance(cluster, Iterable) else cluster
    return Dispatcher(jobs, ground, policy, rules or Rules(), outages, sink, start_s).play(until_s)
