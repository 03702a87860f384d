"""Anti-affinity: jobs of one group never stand on the same node, or in the same group of nodes.

Like keeping twins in different classes: what befalls one node, or one switch, takes at most one of them. Rule:
Kubernetes' required pod anti-affinity (kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node); its topology
key is the node here, or a group of ``nodes_per_domain`` neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from sim.cluster.nodes import Ground
from sim.results.cluster_log import Placed

if TYPE_CHECKING:
    from sim.spec.job import Job


class Apart:
    """A ground whose placement rule sees only nodes that are free of the job's kin; ``key`` names them ("" = none)."""

    def __init__(
        self, ground: Ground, nodes: int, key: Callable[[Job], str], nodes_per_domain: int = 1
    ) -> None:
        self._ground, self._nodes, self._key, self._size = ground, nodes, key, nodes_per_domain
        self._kin: dict[str, Counter[int]] = {}
        """Key -> domains with its jobs, and how many."""

    @property
    def total_gpus(self) -> float:
        """Devices owned."""
        return self._ground.total_gpus

    @property
    def free_gpus(self) -> float:
        """Devices free on nodes that are up, whoever may use them."""
        return self._ground.free_gpus

    @property
    def down_gpus(self) -> float:
        """Devices on nodes that are down."""
        return self._ground.down_gpus

    def _domains(self, placed: Placed) -> set[int]:
        return {node // self._size for node, _ in placed.spots}

    def _count(self, placed: Placed, job: Job, by: int) -> None:
        key = self._key(job)
        if not key:
            return
        kin = self._kin.setdefault(key, Counter())
        for domain in self._domains(placed):
            kin[domain] += by
            if not kin[domain]:
                del kin[domain]

    def place(self, job: Job, gpus: int, pool: int | None = None) -> Placed | None:
        """See ``Ground``."""
        shut = [
            node
            for domain in self._kin.get(self._key(job), ())
            for node in range(domain * self._size, min((domain + 1) * self._size, self._nodes))
        ]
        for node in shut:
            self._ground.close(node)
        placed = self._ground.place(job, gpus, pool)
        for node in shut:
            self._ground.open(node)
        if placed is not None:
            self._count(placed, job, 1)
        return placed

    def take(self, placed: Placed, job: Job) -> bool:
        """See ``Ground``."""
        kin = self._kin.get(self._key(job), Counter())
        if any(domain in kin for domain in self._domains(placed)) or not self._ground.take(placed, job):
            return False
        self._count(placed, job, 1)
        return True

    def release(self, placed: Placed, job: Job) -> None:
        """See ``Ground``."""
        self._ground.release(placed, job)
        self._count(placed, job, -1)

    def close(self, node: int) -> None:
        """See ``Ground``."""
        self._ground.close(node)

    def open(self, node: int) -> bool:
        """See ``Ground``."""
        return self._ground.open(node)

    def could_hold(self, job: Job, gpus: int) -> bool:
        """See ``Ground``."""
        return self._ground.could_hold(job, gpus)

    def speed(self, placed: Placed) -> float:
        """See ``Ground``."""
        return self._ground.speed(placed)
