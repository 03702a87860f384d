"""What a group of ranks sits on: the links inside a domain, the network between domains, and how many of each.

Like a floor plan for movers: which rooms open into one another (the scale-up domain: NVLink, Infinity Fabric, PCIe),
which doors lead outside (the network cards), and how wide the street is (tiers and their oversubscription).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.device import Device

Floats = NDArray[np.float64]

CUBE_MESH_RINGS = (0.0, 0.0, 1.0, 2.0, 4.0, 0.0, 2.0, 4.0, 6.0)
"""One-way rings through ranks 0..n-1 of the 8-GPU hybrid cube mesh, by n: the largest number of Hamiltonian cycles
that its links (1 or 2 a pair, DGX-1V topology) hold at once; 0 = none, the ring must pass the host."""


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
    """``switch``, ``mesh`` (every pair directly: the links of a pair are a share), ``cube-mesh`` (DGX-1V), ``torus``."""
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

        A switch gives every rank its full rate. In a full mesh a rank reaches n-1 peers and only those links count.
        In the cube mesh it is the rings that fit (:data:`CUBE_MESH_RINGS`), or the host where none does.
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

        Each rank brings its share of the node's cards, and a group at least one whole card; other groups of the same
        node that send at the same time (``concurrent_groups`` in all) leave it a fair share. Never above what the
        ranks' own host links carry.
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

    def taper_frac(self, nodes: ArrayLike, *, every_pair: bool) -> Floats:
        """Share of the cards' rate that the tiers leave to one group on ``nodes`` neighbouring nodes.

        A ring or tree crosses a switch group's uplinks with one node's rate, so it is slowed only when the group has
        fewer nodes there than the oversubscription. An all-to-all (``every_pair``) sends the share of its bytes that
        is meant for nodes outside.
        """
        n = np.asarray(nodes, dtype=float)
        share, cumulative = np.ones_like(n), 1.0
        for tier, above in zip(self.tiers, self.tiers[1:], strict=False):
            cumulative *= above.oversubscription
            if tier.nodes == float("inf"):
                break
            crossing = np.clip(1 - tier.nodes / np.maximum(n, 1), 0, 1) if every_pair else 1 / tier.nodes
            limit = np.minimum(1.0, 1 / (cumulative * np.maximum(crossing, 1e-12)))
            share = np.where(n > tier.nodes, np.minimum(share, limit), share)
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


@dataclass(frozen=True, slots=True)
class UsualNode:
    """The node an accelerator is usually sold in: assumed where a measurement does not say."""

    pattern: str
    devices: float
    scale_up: str
    scale_up_ranks: float
    wiring: str
    nics: float
    nic_bits_per_s: float
    scale_out: str = "infiniband"


USUAL_NODES = (
    UsualNode("v100-sxm", 8, "nvlink", 8, "cube-mesh", 4, 100e9),
    UsualNode("a100-sxm|a800-sxm", 8, "nvlink", 8, "switch", 8, 200e9),
    UsualNode("h100-sxm|h200|h20|h800|h100-96gb|b200|b100", 8, "nvlink", 8, "switch", 8, 400e9),
    UsualNode("gb200|gb300", 4, "nvlink", 72, "switch", 4, 400e9),
    UsualNode("b300", 8, "nvlink", 8, "switch", 8, 800e9),
    UsualNode("gh200", 4, "nvlink", 4, "mesh", 4, 200e9),
    UsualNode("mi3", 8, "xgmi", 8, "mesh", 8, 400e9, "roce"),
    UsualNode("mi2", 8, "xgmi", 8, "mesh", 4, 200e9),
    UsualNode("gaudi", 8, "nvlink", 8, "mesh", 24, 100e9, "roce"),
    UsualNode("p100|v100-pcie|t4|rtx", 8, "pcie", 8, "switch", 1, 10e9, "ethernet"),
    UsualNode("gb10", 1, "none", 1, "switch", 1, 200e9, "roce"),
)
"""Assumptions. Sources: the DGX and HGX user guides of each generation (systems.csv), NVIDIA SuperPOD reference
architectures (one card a GPU); older PCIe servers: one 10 Gbit/s Ethernet port, as commodity servers had."""

NAMED_FABRICS = (
    ("p4de?\\b", "efa", 4, 100),
    ("p3dn", "efa", 1, 100),
    ("p5e|EFA|AWS|p5|p6", "efa", 0, 0),
    ("a3-high|a3 High", "ethernet", 4, 200),
    ("a3-mega|a3 Mega|TCPX", "ethernet", 8, 200),
    ("GKE|GCP|RoCE", "roce", 0, 0),
    ("TCP|Ethernet", "ethernet", 0, 0),
    (r"\bIB\b|InfiniBand|Azure", "infiniband", 0, 0),
)
"""What a system's name says of its network: pattern, fabric, cards a node and Gbit/s a card (0 = the usual node's).
Sources: the clouds' own instance documentation, as in systems.csv."""

PCIE_NODE = UsualNode("", 8, "pcie", 8, "switch", 2, 200e9)

IN_SWITCH_GENERATIONS = ("hopper", "blackwell")
"""Generations whose NVSwitch adds and multicasts (third generation NVSwitch and later)."""


def usual_node(accelerator: str) -> UsualNode:
    """The first :data:`USUAL_NODES` entry whose pattern starts the accelerator's key; a PCIe server otherwise."""
    return next((node for node in USUAL_NODES if re.match(node.pattern, accelerator)), PCIE_NODE)


def node_links(device: Device) -> Links:
    """The links of the node that ``device`` is usually sold in (:data:`USUAL_NODES`, assumed)."""
    node = usual_node(device.key)
    scale_up = node.scale_up if device.scale_up_bytes_per_s > 0 or node.scale_up != "nvlink" else "pcie"
    rate = device.host_bytes_per_s if scale_up in ("pcie", "none") else device.scale_up_bytes_per_s
    return Links(
        accelerator=device.key,
        generation=device.generation,
        scale_up=scale_up,
        scale_up_bytes_per_s=rate,
        scale_up_ranks=node.scale_up_ranks,
        wiring=node.wiring,
        in_switch_reduction=scale_up == "nvlink" and device.generation in IN_SWITCH_GENERATIONS,
        host_bytes_per_s=device.host_bytes_per_s,
        # NCCL goes peer to peer between PCIe root ports only on hosts it trusts to do so; before PCIe Gen4 none
        host_peer_to_peer=device.host_bytes_per_s > 16e9,
        scale_out=node.scale_out,
        nic_bytes_per_s=node.nic_bits_per_s / 8,
        nics_per_node=node.nics,
        devices_per_node=node.devices,
    )


def measured_links(
    device: Device,
    system: str,
    *,
    nodes: int,
    ranks: int,
    fabric: str = "",
    nics_per_node: float | None = None,
    nic_gbit_per_s: float | None = None,
) -> Links:
    """The links of one row of an nccl-tests style table.

    What the row states wins, then what the system's name states (``NVL8x3``, ``20 racks``, ``8x400G``, ``EFA``,
    ``RoCE``, ``pairwise``, ``NVSwitch``), then the accelerator's usual node. A fabric of ``nvlink``, ``xgmi`` or
    ``pcie`` says that the whole group is one domain however many trays it spans.
    """
    links = node_links(device)
    local = ranks / max(nodes, 1)
    if fabric in ("nvlink", "xgmi", "pcie") or nodes <= 1:
        links = _one_domain(links, device, system, ranks, fabric)
    else:
        links = _several_domains(links, system, ranks, local)
    if fabric in ("infiniband", "roce", "efa", "ethernet"):
        links = replace(links, scale_out=fabric)
    stated = re.search(r"(\d+)\s*x\s*(\d+)\s*G\b", system)
    if stated:
        links = replace(links, nics_per_node=float(stated[1]), nic_bytes_per_s=float(stated[2]) * 1e9 / 8)
    if nics_per_node:
        links = replace(links, nics_per_node=float(nics_per_node))
    if nic_gbit_per_s:
        links = replace(links, nic_bytes_per_s=float(nic_gbit_per_s) * 1e9 / 8)
    if nics_per_node or stated:  # the cards stated are those that serve the ranks at hand
        links = replace(links, devices_per_node=max(min(local, links.devices_per_node), 1.0))
    return links


def _one_domain(links: Links, device: Device, system: str, ranks: int, fabric: str) -> Links:
    pairwise = "pairwise" in system.lower() or "bridge" in system.lower()
    scale_up = fabric or links.scale_up
    if scale_up not in ("nvlink", "xgmi") or (pairwise and ranks > 2) or device.scale_up_bytes_per_s <= 0:
        return replace(
            links,
            scale_up="pcie",
            scale_up_bytes_per_s=device.host_bytes_per_s,
            scale_up_ranks=ranks,
            wiring="switch",
            in_switch_reduction=False,
        )
    wiring = "switch" if re.search(r"nvswitch|dgx-?2", system, re.IGNORECASE) else links.wiring
    return replace(
        links,
        scale_up=scale_up,
        scale_up_bytes_per_s=device.scale_up_bytes_per_s,
        scale_up_ranks=max(ranks, links.scale_up_ranks) if wiring != "mesh" or not pairwise else 2,
        wiring="switch" if pairwise else wiring,
        in_switch_reduction=links.in_switch_reduction and not pairwise,
    )


def _several_domains(links: Links, system: str, ranks: int, local: float) -> Links:
    domain = local
    partition, racks = re.search(r"NVL(\d+)x(\d+)", system), re.search(r"(\d+) racks", system)
    if partition:
        domain = float(partition[1])
    elif racks:
        domain = ranks / float(racks[1])
    if re.search(r"\bdgx-?2\b", system, re.IGNORECASE):
        links = replace(links, wiring="switch", devices_per_node=16.0, nics_per_node=8.0)
    for pattern, name, nics, gbit in NAMED_FABRICS:
        if re.search(pattern, system):
            links = replace(links, scale_out=name)
            if nics:
                links = replace(links, nics_per_node=float(nics), nic_bytes_per_s=gbit * 1e9 / 8)
            break
    cards = re.search(r"(\d+) NICs", system)
    if cards:
        links = replace(links, nics_per_node=float(cards[1]), devices_per_node=max(local, 1.0))
    return replace(links, scale_up_ranks=max(domain, 1.0))
