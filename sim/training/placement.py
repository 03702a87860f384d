"""Where the ranks of each group sit: which of them share a node and which talk over the network.

Ranks are laid out as Megatron-LM lays them: tensor ranks next to one another, then data-parallel ranks, pipeline
stages farthest apart (arXiv 2104.04473, section 3; megatron/core/parallel_state.py, order tp-cp-ep-dp-pp).
"""

from __future__ import annotations

from math import gcd

from sim.spec.parallelism import Plan
from sim.training.pricing import Group


def groups(plan: Plan, data: int, domain: int, devices_per_node: int) -> dict[str, Group]:
    """The tensor, data and pipeline groups of a plan.

    Args:
        data: data-parallel copies.
        domain: devices in one scale-up domain.
        devices_per_node: devices that share a node's network cards.
    """
    t, p = plan.tensor, plan.pipeline
    tensor_inside = min(t, domain)
    data_inside = min(data, max(domain // t, 1))
    while data % data_inside:  # ragged groups behave like their largest even part
        data_inside = gcd(data, data_inside)
    stage_ranks = t * data
    pipeline_inside = 1 if stage_ranks >= domain else min(p, domain // stage_ranks)
    share_node = min(devices_per_node, t * data * p)
    return {
        "tensor": Group(t, tensor_inside, max(share_node // tensor_inside, 1)),
        "data": Group(data, data_inside, max(share_node // data_inside, 1)),
        "pipeline": Group(2 if p > 1 else 1, 2 if pipeline_inside > 1 else 1, share_node),
    }
