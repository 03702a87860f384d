"""What a step of several tasks costs and holds: passes of every task, one exchange and update of all their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sim.results.step import MemoryUse
from sim.spec.tasks import own_weights, task_jobs
from sim.spec.workload import Training
from sim.training.copy_cost import Place, copy_cost
from sim.training.layers import network
from sim.training.memory import memory_use
from sim.training.program_parts import ChunkCost, StepCost

STATE = (
    "weights",
    "cast weights",
    "gradients",
    "optimizer state",
    "tables",
    "compression error",
    "outer optimizer",
)
"""Parts of memory that every model keeps; of the others the largest task's count."""


def tasks_cost(training: Training, places: Sequence[Place], data: int, copies: int) -> StepCost:
    """Durations of a step for one copy: a pass takes the mean of the tasks' passes, by their micro-batches.

    Without a pipeline passes follow one another, so that the mean times the number of passes is their sum. Weights that
    a task shares with the main model are exchanged and updated once.

    Args:
        places: where the copy sits, one stage.
        data: ranks that hold the same dense weights.
        copies: data-parallel copies.
    """
    jobs, own = task_jobs(training), own_weights(training)
    counts = [job.global_batch // (copies * training.plan.micro_batch) for job in jobs]
    costs = [
        copy_cost(job, network(job.model, job), places, data, count)  # type: ignore[arg-type]
        for job, count in zip(jobs, counts, strict=True)
    ]
    bring = [cost for cost, brings in zip(costs, own, strict=True) if brings]
    gathers = [[_mean([cost.weights_s[0][0] for cost in costs], counts)]] if costs[0].weights_s else []
    return StepCost(
        [[_mean_pass([cost.chunks[0][0] for cost in costs], counts)]],
        0.0,
        [[sum(cost.gradients_s[0][0] for cost in bring)]],
        [sum(cost.optimizer_s[0] for cost in bring)],
        [sum(cost.parameters_s[0] for cost in bring)],
        weights_s=gathers,
        layers=[[max(cost.layers[0][0] for cost in costs)]],
    )


def tasks_memory(training: Training, data: int, copies: int, capacity_bytes: float) -> tuple[MemoryUse, ...]:
    """Peak use of a device: the state of every model, and the activations of the task that needs most."""
    jobs, own = task_jobs(training), own_weights(training)
    parts: dict[str, float] = {}
    for job, brings in zip(jobs, own, strict=True):
        count = job.global_batch // (copies * training.plan.micro_batch)
        whole = network(job.model, job)  # type: ignore[arg-type]
        use = memory_use(whole, job, count, data, capacity_bytes)[0]
        for name, size in use.parts_bytes.items():
            if name not in STATE:
                parts[name] = max(parts.get(name, 0.0), size)
            elif brings:
                parts[name] = parts.get(name, 0.0) + size
    return (replace(use, parts_bytes=parts),)


def _mean(seconds: Sequence[float], counts: Sequence[int]) -> float:
    return sum(s * n for s, n in zip(seconds, counts, strict=True)) / sum(counts)


def _mean_pass(passes: Sequence[ChunkCost], counts: Sequence[int]) -> ChunkCost:
    names = ("forward_s", "backward_s", "forward_tensor_s", "backward_tensor_s", "weight_s", "offload_s")
    return ChunkCost(**{name: _mean([getattr(one, name) for one in passes], counts) for name in names})
