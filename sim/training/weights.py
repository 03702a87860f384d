"""Parameters that one device of a plan holds."""

from __future__ import annotations

from sim.spec.model import Model
from sim.spec.parallelism import Plan
from sim.spec.parameter_count import layer_weights, weights


def stage_parameters(model: Model, plan: Plan, layers: int, rank: int) -> float:
    """Parameters of one device of pipeline rank ``rank`` that holds ``layers`` layers of a dense decoder.

    Matrices are split over the tensor group, norms are whole. The embedding lives on the first rank, the output head
    on the last; tied weights are held by both when these differ (Megatron-LM keeps a copy).
    """
    every, layer = weights(model), layer_weights(model, mixture=False)
    total = layers * ((layer.total - layer.norms) / plan.tensor + layer.norms)
    first, last = rank == 0, rank == plan.pipeline - 1
    if first:
        total += every.embedding / plan.tensor + every.positions
    if last:
        copy = every.embedding if every.head == 0 and not first else 0
        total += every.final_norms + (every.head + copy) / plan.tensor
    return total
