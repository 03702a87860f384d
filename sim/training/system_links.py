"""From the nouns of a scenario (node, device, fabric) to the links that collectives are priced on."""

from __future__ import annotations

from sim.cost.links import Links, Tier
from sim.cost.node_links import IN_SWITCH_GENERATIONS
from sim.spec.hardware import Accelerator, System
from sim.spec.scenario import Fabric

CUBE_MESH_SYSTEMS = ("dgx-1v", "aws-p3dn")
"""Nodes whose V100s are wired as a hybrid cube mesh instead of through NVSwitch."""
SWITCHLESS_GENERATIONS = ("pascal", "volta")
"""Generations whose small nodes have NVLink but no NVSwitch (which came with the sixteen V100s of DGX-2)."""
MESH_RANKS = 4
"""Devices up to which such a node joins every pair: four V100s by two of the six links each (NVIDIA Tesla V100
whitepaper, NVLink topologies), so that two of them talk at a third of a device's rate."""


def system_links(system: System, accelerator: Accelerator, fabric: Fabric) -> Links:
    """The links of one node type under one fabric.

    Without tiers in the scenario the network is one switch with the system's own oversubscription.
    """
    device = accelerator.device()
    scale_up = accelerator.scale_up_fabric
    rate = accelerator.scale_up_bytes_per_s or accelerator.host_link_bytes_per_s
    ranks = max(system.scale_up_domain_size, system.gpus_per_node)
    wiring = "mesh" if scale_up == "xgmi" else "torus" if scale_up == "ici" else "switch"
    if system.key in CUBE_MESH_SYSTEMS:
        wiring = "cube-mesh"
    elif scale_up == "nvlink" and device.generation in SWITCHLESS_GENERATIONS and ranks <= MESH_RANKS:
        wiring = "mesh"
    return Links(
        accelerator=accelerator.key,
        generation=accelerator.generation,
        scale_up=scale_up,
        scale_up_bytes_per_s=rate,
        scale_up_ranks=float(ranks),
        wiring=wiring,
        in_switch_reduction=scale_up == "nvlink" and device.generation in IN_SWITCH_GENERATIONS,
        host_bytes_per_s=accelerator.host_link_bytes_per_s,
        host_peer_to_peer=accelerator.host_link_bytes_per_s > 16e9,
        scale_out=system.fabric,
        nic_bytes_per_s=system.nic_bytes_per_s,
        nics_per_node=float(system.nics_per_node),
        devices_per_node=float(system.gpus_per_node),
        tiers=_tiers(system, fabric),
    )


def _tiers(system: System, fabric: Fabric) -> tuple[Tier, ...]:
    if fabric.tiers:
        return tuple(
            Tier(tier.name, float(tier.nodes or "inf"), tier.oversubscription, tier.latency_s)
            for tier in fabric.tiers
        )
    return (Tier("network", float("inf"), system.oversubscription or 1.0, 3e-6),)
