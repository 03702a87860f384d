"""Which pools the copies of a model sit on: one team, a relay of unlike runners, or teams of unlike strength.

On one pool all copies are alike. With ``plan.stages`` every copy runs through the same pools, stage by stage. With
several pools and no stages each pool holds whole copies, and these differ from pool to pool.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.spec.parallelism import Plan
from sim.spec.scenario import Cluster, Pool

WIDER = ("bf16", "fp16", "tf32", "fp32")
"""Formats in which a device without the wanted one computes, first one it has (as ``sim.cost.kernels.gemm`` does)."""


@dataclass(frozen=True, slots=True)
class Replica:
    """Copies of the model that are alike."""

    pools: tuple[Pool, ...]
    """Where each pipeline stage sits."""
    copies: int


def replicas(cluster: Cluster, plan: Plan) -> tuple[Replica, ...]:
    """One entry a kind of copy: one altogether, or one a pool where pools hold whole copies."""
    if plan.stages and len(cluster.pools) > 1:
        by_name = {pool.name: pool for pool in cluster.pools}
        stages = tuple(by_name[name] for name in plan.stages)
        return (Replica(stages, cluster.devices // plan.model_ranks),)
    return tuple(Replica((pool,) * plan.pipeline, pool.devices // plan.model_ranks) for pool in cluster.pools)


def computes_in(pool: Pool, precision: str) -> str | None:
    """The number format in which a pool does the arithmetic of ``precision``; None where it has none for it."""
    rates = pool.accelerator.device().flop_per_s
    wanted = (precision, *WIDER[WIDER.index(precision) if precision in WIDER else 0 :])
    return next((name for name in wanted if name in rates), None)
