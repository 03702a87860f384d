"""From a scenario to what running jobs share: uplinks of the fabric, and devices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sim.cluster.network import Network, TrafficClass, Wiring
from sim.cluster.rules import Contention
from sim.cluster.sharing import EqualTurns, Neighbours, shares_devices
from sim.cluster.state import JobState
from sim.results.step import StepResult
from sim.spec.scenario import Cluster, Scenario


class Several:
    """Independent contentions at once: shares multiply."""

    def __init__(self, parts: Sequence[Contention]) -> None:
        self._parts = tuple(parts)
        self._shares: tuple[dict[int, float], ...] = tuple({} for _ in parts)

    def join(self, state: JobState) -> None:
        """See ``Contention``."""
        for part in self._parts:
            part.join(state)

    def leave(self, state: JobState) -> None:
        """See ``Contention``."""
        for part, shares in zip(self._parts, self._shares, strict=True):
            part.leave(state)
            shares.pop(state.number, None)

    def changed(self) -> Mapping[int, float]:
        """See ``Contention``."""
        moved: dict[int, None] = {}
        for part, shares in zip(self._parts, self._shares, strict=True):
            new = part.changed()
            shares.update(new)
            moved |= dict.fromkeys(new)
        return {number: math.prod(shares.get(number, 1.0) for shares in self._shares) for number in moved}

    def by_links_frac(self, number: int) -> float:
        """Since shares multiply, each part's logarithm over the sum of all; a part that stops the job has all."""
        logs = [-math.log(max(shares.get(number, 1.0), 1e-300)) for shares in self._shares]
        mine = [part.by_links_frac(number) for part in self._parts]
        return sum(map(math.prod, zip(logs, mine, strict=True))) / (sum(logs) or 1.0)


def contention_of(scenario: Scenario) -> Contention | None:
    """Who slows whom in one run; None where nothing is shared."""
    parts: list[Contention] = []
    policy = scenario.policy
    if policy.network.sharing:
        parts.append(network_of(scenario))
    if shares_devices(policy) and policy.sharing.kind == "time-slicing":
        pairs = {(one.kind, one.neighbour): one.speed_frac for one in policy.sharing.pairs}
        parts.append(Neighbours(policy.sharing.interference, pairs))
    if shares_devices(policy) and policy.sharing.kind == "equal-turns":
        parts.append(EqualTurns())
    return Several(parts) if len(parts) > 1 else parts[0] if parts else None


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
