"""Seconds of the optimizer on each pipeline rank, wherever its state lies.

Like closing the ledger at night: one pass over everything written that day, at the desk or down in the archive.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.cost.optimizer import (
    HOST_PARAMETERS,
    NEWTON_SCHULZ_ITERATIONS,
    RULES,
    offloaded_update_s,
    update_s,
)
from sim.cost.parameters import complete
from sim.spec.model import Model
from sim.spec.ops import Gemm
from sim.spec.workload import Training
from sim.training.data_parallel import SIDE
from sim.training.node_rates import node_rates
from sim.training.pricing import Pricer


def optimizer_s(
    held: Sequence[float],
    layers: Sequence[int],
    training: Training,
    pricer: Pricer,
    bandwidth_frac: float,
    data: int,
    *,
    experts: bool = False,
) -> list[float]:
    """Seconds of the update, by pipeline rank.

    Args:
        held: parameters of a device, by rank.
        layers: layers of each rank.
        bandwidth_frac: share of memory bandwidth that a fused update reaches.
        data: data-parallel copies.
        experts: the parameters are those of routed experts.
    """
    plan, rule = training.plan, RULES[training.optimizer]
    if plan.parameter_server is not None:  # the servers update, at the pace of what comes in
        return [0.0 for _ in held]
    shard = (plan.shard_ranks or data) if plan.zero_stage >= 1 else 1
    device = pricer.device
    if plan.offload_optimizer:
        memory = complete(HOST_PARAMETERS, {})["host_memory_bytes_per_s"]
        link, _ = host_copies_bytes_per_s(pricer)
        return [float(offloaded_update_s(n / shard, rule, link, memory)) for n in held]
    share = 1.0 if pricer.ideal else bandwidth_frac
    seconds = [float(update_s(n / shard, rule, device.memory_bytes_per_s, share)) for n in held]
    model = training.model
    if not rule.orthogonalised or not isinstance(model, Model):
        return seconds
    if model.hidden and not experts:
        one = pricer.seconds(orthogonalise_layer(model)) / (plan.tensor * shard)
        return [total + one * count for total, count in zip(seconds, layers, strict=True)]
    # as many matrices as the parameters make: an expert's, or squares where the model's shape is not known
    sides = (model.hidden, model.moe_ffn_hidden) if experts and model.hidden else (int(SIDE), int(SIDE))
    one = pricer.seconds(orthogonalise(*sides)) / (sides[0] * sides[1] * shard)
    return [total + one * n for total, n in zip(seconds, held, strict=True)]


def host_copies_bytes_per_s(pricer: Pricer) -> tuple[float, float]:
    """Rates of large pinned copies from the device to its host, and back: as measured, else a share of the link's."""
    link = pricer.device.host_bytes_per_s
    if pricer.ideal:
        return link, link
    rates = node_rates(pricer.fits, pricer.device)
    assumed = link * complete(HOST_PARAMETERS, {})["host_link_frac"]
    down, up = rates.device_to_host_bytes_per_s, rates.host_to_device_bytes_per_s
    return (down.value if down else assumed), (up.value if up else assumed)


def orthogonalise_layer(model: Model) -> list[Gemm]:
    """Muon's products for the dense matrices of one layer, each whole on one of the ranks that share the layer."""
    h, query, value = model.hidden, model.heads * model.head_dim, model.kv_heads * model.head_dim
    shapes = [(h, query), (h, value), (h, value), (query, h)]
    shapes += [(h, model.ffn_hidden)] * (3 if model.gated_ffn else 2)
    return [op for rows, columns in shapes if rows and columns for op in orthogonalise(rows, columns)]


def orthogonalise(rows: int, columns: int) -> list[Gemm]:
    """X X^T, its square and their product with X, five times (see :func:`sim.cost.optimizer.muon_flop`)."""
    a, b = min(rows, columns), max(rows, columns)
    return [Gemm(a, a, b), Gemm(a, a, a), Gemm(a, b, a)] * NEWTON_SCHULZ_ITERATIONS
