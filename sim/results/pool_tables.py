"""The pools of a mixed cluster as a table: who did how much of a step, how busy they were, and how full.

Like the medal table after a relay of unlike teams: one line each, and the slowest is plain to see.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sim.results.step import StepResult
from sim.results.timeline import account_ranks
from sim.spec.copies import computes_in
from sim.spec.model import Model
from sim.spec.scenario import Pool
from sim.spec.training_flop import training_flop_per_sample
from sim.spec.workload import Training

WORK = ("forward", "backward", "optimizer")


def peak_flop_per_s(pool: Pool, precision: str) -> float:
    """Dense peak of one device for ``precision``, or for the wider format that it computes in.

    Raises:
        ValueError: the device has no format for it (the checks refuse such a scenario).
    """
    name = computes_in(pool, precision)
    if name is None:
        raise ValueError(f"{pool.accelerator.key} cannot compute in {precision}")
    return pool.accelerator.device().peak(name)


def pools_table(result: StepResult, training: Training) -> list[dict[str, Any]]:
    """One row a pool of a cluster that has several, ready for JSON; empty for a single pool.

    ``busy_frac`` is the share of the step in which a device's kernels run, averaged over the pool's devices;
    ``mfu_frac`` follows the first convention of the step's own utilisation (forward and backward, full attention).
    """
    pools = result.scenario.cluster.pools
    if len(pools) < 2:
        return []
    books = account_ranks(result.timeline)
    rows = []
    for pool in pools:
        mine = [rank for rank, stage in enumerate(result.stages) if stage.pool == pool.name]
        devices = sum(result.stages[rank].devices for rank in mine)
        busy = sum(result.stages[rank].devices * sum(books[rank][cause] for cause in WORK) for rank in mine)
        memory = [use for use in result.memory if use.pool == pool.name]
        worst = max(memory, key=lambda use: use.total_bytes, default=None)
        flop = sum(_stage_flop(result, training, rank) for rank in mine)
        budget = devices * peak_flop_per_s(pool, training.precision) * result.step_s
        rows.append(
            {
                "pool": pool.name,
                "accelerator": pool.accelerator.name,
                "devices": devices,
                "nodes": pool.nodes,
                "system": pool.system.name,
                "computes_in": computes_in(pool, training.precision),
                "stages": [rank % training.plan.pipeline for rank in mine],
                "layers": [result.stages[rank].layers for rank in mine],
                "samples": result.stages[mine[0]].samples,
                "samples_share_frac": result.stages[mine[0]].samples / training.global_batch,
                "busy_frac": busy / devices / result.step_s,
                "wait_frac": 1 - busy / devices / result.step_s,
                "mfu_frac": flop / budget if flop else None,
                "memory_bytes": worst.total_bytes if worst else None,
                "usable_bytes": worst.usable_bytes if worst else None,
                "fits": all(use.fits for use in memory),
            }
        )
    return rows


def _stage_flop(result: StepResult, training: Training, rank: int) -> float:
    """FLOP of the model on one rank of the timeline, all devices like it together; 0 where there is no layer count.

    Layers count alike; the head's products are on the last stage.
    """
    model, stage = training.model, result.stages[rank]
    if not isinstance(model, Model):
        return 0.0
    whole = training_flop_per_sample(model, training, "full", "none")
    if training.plan.pipeline == 1:
        return stage.samples * whole
    layers = training_flop_per_sample(replace(model, vocab=0), training, "full", "none")
    own = layers * stage.layers / model.layers
    if rank % training.plan.pipeline == training.plan.pipeline - 1:
        own += whole - layers
    return stage.samples * own
