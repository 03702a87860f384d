"""How copies of a model agree on one set of weights, what that costs, and what each keeps in memory.

Like musicians who rehearse in separate rooms: they may compare notes after every piece (all-reduce), each keep a part
of the score and lend it out (ZeRO), ask a librarian (parameter server), meet now and then (local SGD), or send only
the gist (compression).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost import compression as gist
from sim.cost.optimizer import GRADIENT_BYTES, MASTER_BYTES, RULES, WEIGHT_BYTES
from sim.cost.parameter_server import (
    PARAMETER_SERVER_PARAMETERS,
    asynchronous_updates_per_s,
    bounded_staleness_step_s,
    exchange_s,
    synchronous_step_s,
)
from sim.cost.parameters import complete
from sim.spec.device import Device
from sim.spec.model import Model
from sim.spec.ops import Message
from sim.spec.parallelism import Plan
from sim.spec.profile import Constant, Fit, find
from sim.spec.workload import Training
from sim.training.pricing import Group, Pricer

Floats = NDArray[np.float64]

OUTER_STATE_BYTES = 8.0
"""Local SGD with an outer momentum (DiLoCo, arXiv 2311.08105): the last agreed weights and the momentum, fp32."""
OUTER_TRAFFIC_BYTES = 26.0
"""A parameter of the outer update: weights and anchor read, anchor and momentum in and out, both weights written."""
SIDE = 1024.0
"""Side of the square matrices that stand for the parameters of a model known only by its arithmetic (assumed)."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Seconds of a step's data-parallel traffic; see :class:`sim.training.program.StepCost` for where they go."""

    reduce_s: list[list[float]]
    """Gradients, by pipeline rank and chunk."""
    parameters_s: list[float]
    """Updated weights gathered once a step after the update (ZeRO 1 and 2), by rank."""
    weights_s: list[list[float]]
    """One gathering of a chunk's weights, by rank and chunk: for every pass (ZeRO 3) or for the first forward (ZeRO 1
    and 2 that hide it); empty otherwise."""

    def plus(self, other: Exchange) -> Exchange:
        """Both exchanges, one after the other."""
        return Exchange(
            [
                [a + b for a, b in zip(*pair, strict=True)]
                for pair in zip(self.reduce_s, other.reduce_s, strict=True)
            ],
            [a + b for a, b in zip(self.parameters_s, other.parameters_s, strict=True)],
            [
                [a + b for a, b in zip(*pair, strict=True)]
                for pair in zip(self.weights_s, other.weights_s, strict=True)
            ],
        )


def overlaps(plan: Plan) -> bool:
    """Whether gradients travel while the last backward still runs.

    Compression that selects or factors needs the whole gradient first (Agarwal et al., arXiv 2103.00543); what is
    exchanged every few steps, or with asynchronous servers, waits for no backward.
    """
    if plan.parameter_server is not None or plan.local_steps > 1:
        return False
    return plan.overlap_gradients and plan.compression.method in ("none", "fp16")


def buckets(plan: Plan, layers: int) -> int:
    """Messages that a chunk of ``layers`` layers sends its gradients in; FSDP sends one for each layer it shards."""
    return plan.gradient_buckets or (max(layers, 1) if plan.zero_stage == 3 else 1)


def gathers_once(plan: Plan) -> bool:
    """Whether updated weights are gathered layer by layer ahead of a step's first forward (ZeRO 1 and 2)."""
    return plan.zero_stage in (1, 2) and plan.overlap_parameters


def sent_bytes(
    zero_stage: int,
    gradient_bytes: ArrayLike,
    weight_bytes: ArrayLike,
    ranks: ArrayLike,
    shard_ranks: ArrayLike = 0,
    micro_batches: ArrayLike = 1,
) -> Floats:
    """Bytes one rank sends a step: 2G (ZeRO 0), G + W (1, 2) or G + 2W for each micro-batch (3), times (n-1)/n.

    Rajbhandari et al. 2020 (arXiv 1910.02054), section 7. With ``shard_ranks`` s (HSDP; 0 = all) sharding is inside
    groups of s and the shards are all-reduced across the n/s groups: 2G/s more.
    """
    n = np.asarray(ranks, dtype=float)
    s = np.where(np.asarray(shard_ranks) > 0, shard_ranks, n) * 1.0
    grad, weights = np.asarray(gradient_bytes, dtype=float), np.asarray(weight_bytes, dtype=float)
    if zero_stage == 0:
        return np.asarray(2 * grad * (n - 1) / n)
    gathers = 2 * np.asarray(micro_batches, dtype=float) if zero_stage == 3 else 1.0
    return np.asarray((grad + gathers * weights) * (s - 1) / s + 2 * grad / s * (n / s - 1) / (n / s))


def shard_groups(data: Group, shard_ranks: int) -> dict[str, Group]:
    """The groups ``shard`` (neighbours that share one copy) and ``replica`` (equal shards) inside a data group."""
    size = shard_ranks or data.ranks
    inside = gcd(size, data.ranks_per_domain)
    across = gcd(data.ranks // size, max(data.ranks_per_domain // inside, 1))
    sharing = data.ranks_per_domain * data.concurrent
    between = data.nodes_apart * max(size // data.ranks_per_domain, 1)
    return {
        "shard": Group(size, inside, max(sharing // inside, 1), data.nodes_apart),
        "replica": Group(data.ranks // size, across, max(sharing // across, 1), between),
    }


def gradient_value_bytes(plan: Plan) -> float:
    """Bytes of a gradient as it is kept and sent."""
    return WEIGHT_BYTES if plan.half_gradients else GRADIENT_BYTES


def gradient_messages(plan: Plan, gradient_bytes: float, shard_ranks: int) -> list[Message]:
    """What one reduction of ``gradient_bytes`` sends: an all-reduce, or a reduce-scatter and shards across replicas."""
    if plan.zero_stage == 0:
        return [Message("all_reduce", gradient_bytes, "data", "gradients")]
    shards = Message("all_reduce", gradient_bytes / shard_ranks, "replica", "gradient shards")
    return [Message("reduce_scatter", gradient_bytes, "shard", "gradients"), shards]


def exchange(
    held: Sequence[float],
    layers: Sequence[Sequence[int]],
    training: Training,
    pricer: Pricer,
    compute_s: float = 0.0,
    frozen: Sequence[float] = (),
) -> Exchange:
    """Price the exchange of one step.

    Args:
        held: trained parameters of a device, by pipeline rank.
        layers: layers by rank and chunk.
        compute_s: forward and backward of one step (asynchronous servers work meanwhile).
        frozen: parameters without gradient, by pipeline rank: gathered with the others under ZeRO 3.
    """
    plan = training.plan
    groups = dict(pricer.groups)
    groups |= shard_groups(groups["data"], plan.shard_ranks)
    pricer = replace(pricer, groups=groups)
    shard, ahead = groups["shard"].ranks, gathers_once(plan)
    reduce_s, parameters_s, weights_s = [], [], []
    for parameters, still, counts in zip(held, frozen or [0.0] * len(held), layers, strict=True):
        shares = [parameters * count / sum(counts) for count in counts]
        reduce_s.append(
            [
                _reduce_s(values, shard, buckets(plan, count), training, pricer, compute_s)
                for values, count in zip(shares, counts, strict=True)
            ]
        )
        sent = [
            values + (still * count / sum(counts) if plan.zero_stage == 3 else 0.0)
            for values, count in zip(shares, counts, strict=True)
        ]
        gathers = [Message("all_gather", WEIGHT_BYTES * values, "shard", "weights") for values in sent]
        whole = Message("all_gather", WEIGHT_BYTES * parameters, "shard", "weights")
        parameters_s.append(pricer.seconds([whole]) if plan.zero_stage in (1, 2) and not ahead else 0.0)
        if plan.zero_stage == 3 or ahead:
            weights_s.append([pricer.seconds([gather]) for gather in gathers])
    return Exchange(reduce_s, parameters_s, weights_s)


def _reduce_s(
    values: float, shard: int, pieces: int, training: Training, pricer: Pricer, compute_s: float
) -> float:
    plan = training.plan
    if values == 0:
        return 0.0
    if plan.parameter_server is not None:
        return _server_s(values, training, pricer, compute_s)
    if pricer.groups["data"].ranks == 1 or pricer.ideal:
        return 0.0
    method = plan.compression.method
    if method == "none":
        size = gradient_value_bytes(plan) * values / pieces
        seconds = pieces * pricer.seconds(gradient_messages(plan, size, shard))
    elif plan.zero_stage:  # 16-bit gradients: half the bytes, and the casts
        seconds = pricer.seconds(gradient_messages(plan, GRADIENT_BYTES / 2 * values, shard))
        seconds += _pack_s(gist.half_cast(values), training, pricer)
    else:
        packed = compressed(training, values, pricer.groups["data"].ranks)
        seconds = pricer.seconds(
            [Message(kind, size, "data", "compressed gradients") for kind, size in packed.messages]
        )
        seconds += _pack_s(packed, training, pricer)
    if plan.local_steps > 1:
        seconds += OUTER_TRAFFIC_BYTES * values / _memory_bytes_per_s(pricer)
    return seconds / plan.local_steps


def compressed(training: Training, values: ArrayLike, ranks: ArrayLike) -> gist.Compressed:
    """What the plan's compression makes of ``values`` fp32 gradients.

    PowerSGD factors matrices: the values are taken as square ones of the model's width.
    """
    choice = training.plan.compression
    if choice.method == "fp16":
        return gist.half_cast(values)
    if choice.method == "fp8":
        return gist.fp8(values, ranks)
    if choice.method == "top-k":
        return gist.top_k(values, ranks, choice.keep_frac)
    if choice.method == "1-bit":
        return gist.one_bit(values, ranks)
    if choice.method == "none":
        return gist.uncompressed(values)
    side = matrix_side(training)
    one = gist.power_sgd(side, side, min(float(choice.rank), side))
    count = np.asarray(values, dtype=float) / side**2
    return gist.Compressed(
        tuple((kind, size * count) for kind, size in one.messages),
        one.memory_bytes * count,
        one.flop * count,
        one.state_bytes * count,
    )


def matrix_side(training: Training) -> float:
    """Side of the square matrices that stand for a model's: its width."""
    model = training.model
    return float(model.hidden) if isinstance(model, Model) and model.hidden else SIDE


def _memory_bytes_per_s(pricer: Pricer) -> float:
    return pricer.device.memory_bytes_per_s * complete(gist.COMPRESSION_PARAMETERS, {})["memory_frac"]


def _pack_s(packed: gist.Compressed, training: Training, pricer: Pricer) -> float:
    device, ratio = (
        pricer.device,
        measured_packing(pricer.fits, pricer.device, training.plan.compression.method),
    )
    rates = device.memory_bytes_per_s, device.peak(training.precision)
    return float(gist.packing_s(packed, *rates, ratio.value if ratio else 1.0))


def measured_packing(fits: Sequence[Fit], device: Device, method: str) -> Constant | None:
    """Measured over modelled time of a compression's kernels on the device or its generation; None = not measured."""
    kin = [
        fit
        for fit in fits
        if fit.op == "compression"
        and fit.key.get("of") == method
        and (fit.key.get("accelerator") == device.key or fit.key.get("generation") == device.generation)
    ]
    fit = find(kin, "compression", (("accelerator", device.key),))
    return None if fit is None else fit.parameters.get("packing_ratio")


def server_message_bytes(training: Training, values: float, workers: int) -> float:
    """Bytes M of one copy on its way to or from the servers: half of what is pushed and pulled.

    Uncompressed both ways are fp32. Casts and signs shrink both; after top-k a worker pulls whatever any worker
    changed, with its index, or everything where that is less.
    """
    choice = training.plan.compression
    whole = GRADIENT_BYTES * values
    if choice.method == "top-k":
        push = 8 * choice.keep_frac * values
        return (push + min(workers * push, whole)) / 2
    share = {"none": 1.0, "fp16": 0.5, "fp8": 0.25 * (1 + 4 / 128), "1-bit": 1 / 32}[choice.method]
    return whole * share


def _server_s(values: float, training: Training, pricer: Pricer, compute_s: float) -> float:
    """Seconds that a step with parameter servers takes beyond ``compute_s`` of a worker (the rank's share of it)."""
    server = training.plan.parameter_server
    if server is None or pricer.ideal:
        return 0.0
    known = complete(PARAMETER_SERVER_PARAMETERS, {})
    links, tensor = pricer.links, training.plan.tensor
    node = links.nic_bytes_per_s * links.nics_per_node
    workers = pricer.groups["data"].ranks
    each = known["bandwidth_frac"] * (server.server_bytes_per_s or node)
    own = known["bandwidth_frac"] * node / min(links.devices_per_node, workers * tensor) * tensor
    packed = compressed(training, values, workers)
    size = server_message_bytes(training, values, workers) * tensor
    busy = compute_s + _pack_s(packed, training, pricer)
    spread = server.jitter_frac * compute_s
    if not server.asynchronous:
        both = exchange_s(size, workers, server.servers, each, own, known["latency_s"])
        return float(synchronous_step_s(busy, spread, workers, both)) - compute_s
    alone = exchange_s(size, 1, server.servers, each, own, known["latency_s"])
    bound = float("inf") if server.staleness is None else server.staleness
    cycle = bounded_staleness_step_s(busy, spread, workers, bound, alone)
    rate = asynchronous_updates_per_s(workers, cycle, size, server.servers, each)
    return workers / float(rate) - compute_s


def state_bytes(parameters: float, layers: int, training: Training, data: int) -> dict[str, float]:
    """Bytes that weights, gradients and optimizer state take on a device that computes with ``parameters``.

    ZeRO 1, 2 and 3 share out optimizer state, gradients and weights over the shard group (arXiv 1910.02054). Under
    ZeRO 3 two unsharded layers (FSDP's limit of gathers in flight) and one unsharded gradient come on top.
    """
    plan, rule = training.plan, RULES[training.optimizer]
    shard = plan.shard_ranks or data
    side = matrix_side(training)
    state = float(rule.kept_bytes(side, side)) * parameters / (shard if plan.zero_stage >= 1 else 1)
    parts = {
        "weights": WEIGHT_BYTES * parameters / (shard if plan.zero_stage >= 3 else 1),
        "gradients": gradient_value_bytes(plan) * parameters / (shard if plan.zero_stage >= 2 else 1),
        "optimizer state": 0.0 if plan.offload_optimizer or plan.parameter_server else state,
    }
    if training.autocast:  # the fp32 copy is the weight; its cast lies beside it until backward is done
        split = shard if plan.zero_stage >= 3 else 1
        if plan.parameter_server is None:
            parts["optimizer state"] -= MASTER_BYTES * parameters / split
        parts["cast weights"] = parts["weights"]
        parts["weights"] = MASTER_BYTES * parameters / split
    if plan.zero_stage >= 3 and shard > 1:
        layer = parameters / max(layers, 1)
        parts["unsharded layers"] = (2 * WEIGHT_BYTES + gradient_value_bytes(plan)) * min(layer, parameters)
    kept = float(compressed(training, parameters, data).state_bytes)
    if kept > 0:
        parts["compression error"] = kept
    if plan.local_steps > 1:
        parts["outer optimizer"] = OUTER_STATE_BYTES * parameters
    return parts
