"""What a group of ranks sits on: the links inside a domain, the network between domains, and how many of
each.

Like a floor plan for movers: which rooms open into one another (the scale-up domain: NVLink, Infinity
Fabric, PCIe), which doors lead outside (the network cards), and how wide the street is (tiers and their
oversubscription).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

CUBE_MESH_RINGS = (0.0, 0.0, 1.0, 2.0, 4.0, 0.0, 2.0, 4.0, 6.0)
"""One-way rings through ranks 0..n-1 of the 8-GPU hybrid cube mesh, by n: the largest number of
Hamiltonian cycles that its links (1 or 2 a pair, DGX-1V topology) hold at once; 0 = none, the ring
must pass the host."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One level of switches above the nodes."""

    name: str
    nodes: float
    """Nodes below one switch group of this tier; the last tier may be ``inf``."""
    oversubscription: float = 1.0
    """Rate entering from below over rate leaving upwards."""
    latency_s: float = 0.0
    """Added once for a path that turns around at this tier."""


@dataclass(frozen=True, slots=True)
class Links:
    """The links of one kind of node. Rates are one way, bytes/s."""

    accelerator: str
    generation: str
    scale_up: str
    """``nvlink``, ``xgmi``, ``pcie``, ``ici``, ``neuronlink`` or ``none``."""
    scale_up_bytes_per_s: float
    """Per device, all its links together; for ``pcie`` the device's slot."""
    scale_up_ranks: float
    """Devices reachable over ``scale_up`` (8 in an HGX node, 72 in an NVL72 rack)."""
    wiring: str = "switch"
    """``switch``, ``mesh`` (every pair directly: the links of a pair are a share), ``cube-mesh``
    (DGX-1V), ``torus``."""
    in_switch_reduction: bool = False
    """The switch adds and multicasts (NVLink SHARP)."""
    host_bytes_per_s: float = 0.0
    """Per device, to the host and to the network card."""
    host_peer_to_peer: bool = True
    """Devices read each other over PCIe; False: each byte goes through host memory."""
    scale_out: str = "none"
    """``infiniband``, ``roce``, ``efa``, ``ethernet``, ``dcn`` or ``none``."""
    nic_bytes_per_s: float = 0.0
    """One card."""
    nics_per_node: float = 0.0
    devices_per_node: float = 1.0
    tiers: tuple[Tier, ...] = ()

    def scale_up_rate(self, ranks: ArrayLike) -> Floats:
        """Bytes/s one way that a ring over ``ranks`` of one domain can have on each device.

        A switch gives every rank its full rate. In a full mesh a rank reaches n-1 peers and only those
        links count. In the cube mesh it is the rings that fit (:data:`CUBE_MESH_RINGS`), or the host
        where none does.
        """
        n = np.asarray(ranks, dtype=float)
        if self.wiring == "mesh":
            peers = max(self.scale_up_ranks - 1, 1)
            return np.asarray(self.scale_up_bytes_per_s * np.clip(n - 1, 1, peers) / peers)
        if self.wiring == "cube-mesh":
            rings = np.asarray(CUBE_MESH_RINGS)[np.clip(n, 0, 8).astype(int)]
            return np.asarray(
                np.where(rings > 0, self.scale_up_bytes_per_s * rings / 6, self.host_bytes_per_s)
            )
        return np.full_like(n, self.scale_up_bytes_per_s)

    def scale_out_rate(self, ranks_per_node: ArrayLike, concurrent_groups: ArrayLike = 1.0) -> Floats:
        """Bytes/s one way that a group with so many ranks on a node has to the network.

        Each rank brings its share of the node's cards, and a group at least one whole card; other groups
        of the same node that send at the same time (``concurrent_groups`` in all) leave it a fair share.
        Never above what the ranks' own host links carry.
        """
        local, groups = np.asarray(ranks_per_node, dtype=float), np.asarray(concurrent_groups, dtype=float)
        share = self.nics_per_node * local / self.devices_per_node
        rate = self.nic_bytes_per_s * np.maximum(share, np.minimum(1.0, self.nics_per_node))
        nodes = np.maximum(local / self.devices_per_node, 1.0)
        rate = np.minimum(rate, nodes * self.nics_per_node * self.nic_bytes_per_s / groups)
        return np.asarray(
            np.minimum(rate, local * self.host_bytes_per_s) if self.host_bytes_per_s > 0 else rate
        )

    def tier_latency_s(self, nodes: ArrayLike) -> Floats:
        """Latency that the switches between ``nodes`` neighbouring nodes add to a hop."""
        n = np.asarray(nodes, dtype=float)
        total, below = np.zeros_like(n), 1.0
        for tier in self.tiers:
            total = total + np.where(n > below, tier.latency_s, 0.0)
            below = tier.nodes
        return total

    def taper_frac(self, nodes: ArrayLike, *, every_pair: bool, nodes_apart: ArrayLike = 1.0) -> Floats:
        """Share of the cards' rate that the tiers leave to one group on ``nodes`` nodes.

        ``nodes_apart`` from one node of the group to its next; the nodes between hold groups of the same
        kind that send at the same time. Of the nodes below a switch group, a ring or tree sends outside
        from the last one alone, so all those groups together from ``nodes_apart`` of them: they are slowed
        where that is more than the uplinks carry, a node's rate times nodes over the oversubscription. An
        all-to-all (``every_pair``) sends the share of its bytes that is meant for nodes outside.
        """
        n, apart = np.asarray(nodes, dtype=float), np.maximum(np.asarray(nodes_apart, dtype=float), 1.0)
        share, cumulative = np.ones_like(n), 1.0
        for tier, above in zip(self.tiers, self.tiers[1:], strict=False):
            cumulative *= above.oversubscription
            if tier.nodes == float("inf"):
                break
            here = np.maximum(tier.nodes / apart, 1.0)  # nodes of one group below one switch group
            crossing = np.clip(1 - here / np.maximum(n, 1), 0, 1) if every_pair else 1 / here
            limit = np.minimum(1.0, 1 / (cumulative * np.maximum(crossing, 1e-12)))
            share = np.where(n * apart > tier.nodes, np.minimum(share, limit), share)
        return share


@dataclass(frozen=True, slots=True)
class Placement:
    """How a group lies: so many ranks in a domain, so many domains, on so many nodes. Broadcasts together."""

    ranks: Floats
    ranks_per_domain: Floats
    domains: Floats
    nodes: Floats


def place(links: Links, ranks: ArrayLike, ranks_per_domain: ArrayLike | None = None) -> Placement:
    """Pack ``ranks`` into domains; ``ranks_per_domain`` where fewer of the group share a domain than fit.

    Raises:
        ValueError: a rank count below 1.
    """
    n = np.asarray(ranks, dtype=float)
    if n.size and n.min() < 1:
        raise ValueError(f"ranks: found {n.min():g}, expected at least 1")
    inside = np.minimum(
        n, max(links.scale_up_ranks, 1) if ranks_per_domain is None else np.asarray(ranks_per_domain)
    )
    inside = np.maximum(np.minimum(inside, max(links.scale_up_ranks, 1)), 1.0)
    domains = np.maximum(n / inside, 1.0)
    nodes = domains * np.maximum(inside / links.devices_per_node, 1.0)
    return Placement(n, inside, domains, nodes)
