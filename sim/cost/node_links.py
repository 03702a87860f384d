"""Which links a measurement was made on, where it says little: the node an accelerator is usually sold
in.

Like guessing a house from its address: most of a street is built alike, and the name on the gate tells
the exceptions. Every guess here is an assumption and is named as one; what a row or a scenario states
always wins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sim.cost.links import Links
from sim.spec.device import Device


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
"""Assumptions. Sources: the DGX and HGX user guides of each generation (systems.csv), NVIDIA SuperPOD
reference architectures (one card a GPU); older PCIe servers: one 10 Gbit/s Ethernet port, as
commodity servers had."""

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
"""What a system's name says of its network: pattern, fabric, cards a node and Gbit/s a card (0 = the
usual node's). Sources: the clouds' own instance documentation, as in systems.csv."""

PCIE_NODE = UsualNode("", 8, "pcie", 8, "switch", 2, 200e9)
"""Any other accelerator: a PCIe server of eight with two 200 Gbit/s cards (assumed)."""

IN_SWITCH_GENERATIONS = ("hopper", "blackwell")
"""Generations whose NVSwitch adds and multicasts (third generation NVSwitch and later)."""


def usual_node(accelerator: str) -> UsualNode:
    """The first :data:`USUAL_NODES` entry whose pattern starts the accelerator's key; a PCIe server
    otherwise."""
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
        # assumed: hosts of before PCIe Gen4 do not let cards under different root ports talk directly
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

    What the row states wins, then what the system's name states (``NVL8x3``, ``20 racks``, ``8x400G``,
    ``EFA``, ``RoCE``, ``pairwise``, ``NVSwitch``), then the accelerator's usual node. A fabric of
    ``nvlink``, ``xgmi`` or ``pcie`` says that the whole group is one domain however many trays it spans.
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
    if fabric == "gloo":  # through the host's memory or loopback; assumed a quarter of the memory's rate
        rate = device.host_bytes_per_s or device.memory_bytes_per_s / 4
        return replace(
            links, scale_up="gloo", scale_up_bytes_per_s=rate, scale_up_ranks=ranks, wiring="switch"
        )
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
