"""From a scenario to what running jobs share: uplinks of the fabric, and devices."""

from __future__ import annotations

from dataclasses import replace

from sim.cluster.network import Network, TrafficClass, Wiring
from sim.cluster.rules import Contention
from sim.results.step import StepResult
from sim.spec.scenario import Cluster, Scenario


def contention_of(scenario: Scenario) -> Contention | None:
    """Who slows whom in one run; None where nothing is shared."""
    return network_of(scenario) if scenario.policy.network.sharing else None


def network_of(scenario: Scenario) -> Network:
    """The uplinks of ``cluster.fabric`` with the classes of ``policy.network``."""
    asked = scenario.policy.network
    classes = {
        queue: TrafficClass(one.priority, one.weight, one.cap_frac, one.name)
        for one in asked.classes
        for queue in one.queues
    }
    return Network(
        wirings(scenario.cluster),
        classes,
        together=asked.phases == "together",
        every_pair=asked.pattern == "pairs",
    )


def wirings(cluster: Cluster) -> list[Wiring]:
    """Uplinks by pool. What leaves a group of one tier enters the tier above, whose oversubscription it meets (as in
    ``sim.cost.links``: the oversubscription of the lowest tier, below which the nodes sit, slows nobody)."""
    tiers: list[tuple[int, float]] = []
    taper = 1.0
    for tier, above in zip(cluster.fabric.tiers, cluster.fabric.tiers[1:], strict=False):
        taper *= above.oversubscription
        if tier.nodes is None:
            break
        tiers.append((tier.nodes, taper))
    found: list[Wiring] = []
    first = 0
    for pool in cluster.pools:
        system = pool.system
        found.append(Wiring(first, pool.nodes, system.gpus_per_node, system.node_bytes_per_s, tuple(tiers)))
        first += pool.nodes
    return found


def full_bandwidth(cluster: Cluster) -> Cluster:
    """The same with no oversubscription: what a job's speed alone is measured on where uplinks are shared."""
    tiers = tuple(replace(tier, oversubscription=1.0) for tier in cluster.fabric.tiers)
    return replace(cluster, fabric=replace(cluster.fabric, tiers=tiers))


def network_frac(step: StepResult, gpus_per_node: int) -> float:
    """Share of a step that messages between nodes take and nothing hides: data-parallel and pipeline messages, and
    those of tensor parallelism where its groups are larger than a node."""
    scenario = step.scenario
    if scenario.training is None or scenario.cluster.pools[0].nodes < 2:
        return 0.0
    parts = ["data communication", "pipeline communication"]
    if scenario.training.plan.tensor > gpus_per_node:
        parts.append("tensor communication")
    return min(sum(step.parts_s[part] for part in parts) / step.step_s, 1.0)
