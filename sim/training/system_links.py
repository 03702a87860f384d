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


TURN_S = 3e-6
"""Time that a path spends turning around at a tier, one way; as :class:`sim.spec.scenario.Tier` has it."""


def system_links(system: System, accelerator: Accelerator, fabric: Fabric) -> Links:
    """The links of one node type under one fabric.

    Without tiers in the scenario the network is one switch, or, where the system says that it is oversubscribed, leaves
    of ``full_bisection_nodes`` nodes under a spine.
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
    taper = system.oversubscription or 1.0
    if taper <= 1.0:
        return (Tier("network", float("inf"), 1.0, TURN_S),)
    leaf = Tier("leaf", float(system.full_bisection_nodes), 1.0, TURN_S)
    return leaf, Tier("spine", float("inf"), taper, TURN_S)
