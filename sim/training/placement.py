"""Where the ranks of each group sit: which of them share a node and which talk over the network.

Ranks are laid out as Megatron-LM lays them: tensor ranks next to one another, then data-parallel ranks, pipeline
stages farthest apart (arXiv 2104.04473, section 3; megatron/core/parallel_state.py, order tp-cp-ep-dp-pp).
"""

from __future__ import annotations

from math import gcd

from sim.spec.parallelism import Plan
from sim.training.pricing import Group


def groups(plan: Plan, data: int, domain: int, devices_per_node: int) -> dict[str, Group]:
    """The tensor, context, data, expert and pipeline groups of a plan, and all ranks that share an FP8 tensor.

    Args:
        data: data-parallel copies.
        domain: devices in one scale-up domain.
        devices_per_node: devices that share a node's network cards.
    """
    t, p, c = plan.tensor, plan.pipeline, plan.context
    replicas = data * c  # ranks with the same dense weights: context ranks count as data ranks
    stage_ranks = t * replicas
    held = plan.expert_tensor * plan.expert  # ranks that hold the experts of a layer once
    pipeline_inside = 1 if stage_ranks >= domain else min(p, domain // stage_ranks)
    share_node = min(devices_per_node, stage_ranks * p)

    def group(ranks: int, apart: int) -> Group:
        """``ranks`` devices, each ``apart`` devices from the next."""
        inside = min(ranks, max(domain // apart, 1))
        while ranks % inside:  # ragged groups behave like their largest even part
            inside = gcd(ranks, inside)
        return Group(ranks, inside, max(share_node // inside, 1), away(apart, inside))

    def away(apart: int, inside: int) -> float:
        """Nodes from one node of such a group to its next, ``inside`` ranks on each domain."""
        return max(apart * inside / max(inside, devices_per_node), 1.0)

    tensor_inside = min(t, domain)
    return {
        "tensor": Group(t, tensor_inside, max(share_node // tensor_inside, 1)),
        "context": group(c, t),
        "data": group(replicas, t),
        "maxima": group(stage_ranks, 1),
        "expert": group(plan.expert, plan.expert_tensor),
        "expert data": group(max(stage_ranks // held, 1), held),
        "pipeline": Group(
            2 if p > 1 else 1, 2 if pipeline_inside > 1 else 1, share_node, away(stage_ranks, pipeline_inside)
        ),
    }
