"""What one copy of a model costs, stage by stage, on the devices its stages sit on.

Like the estimate for one crew's shift: how long each does its part, what they hand on, and what the tidying up takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sim.cost.optimizer import MASTER_BYTES, WEIGHT_BYTES
from sim.results.step import Use
from sim.spec.ops import Block, Conv, Gemm, Message, Op
from sim.spec.scenario import Pool
from sim.spec.workload import SampleModel, Training
from sim.training.data_parallel import Exchange, exchange
from sim.training.layers import Network, dealt_layers
from sim.training.overheads import Overheads
from sim.training.pricing import Group, Pricer
from sim.training.program_parts import ChunkCost, StepCost
from sim.training.roofline import roof
from sim.training.scaling import delayed, maxima_message, products
from sim.training.update import host_copies_bytes_per_s, optimizer_s
from sim.training.weights import held_parameters


@dataclass(frozen=True, slots=True)
class Place:
    """A pool as a step sees it: its price list, and what the software stack adds there."""

    pool: Pool
    pricer: Pricer
    extra: Overheads


def copy_cost(
    training: Training, whole: Network | None, places: Sequence[Place], data: int, count: int
) -> StepCost:
    """Durations of a step for one copy of the model.

    Args:
        whole: the model's blocks; None for a model known only by its arithmetic.
        places: where each pipeline stage sits.
        data: ranks that hold the same dense weights.
        count: micro-batches that the copy works through.
    """
    if isinstance(training.model, SampleModel):
        return _sample_cost(training, training.model, places[0], data, count)
    if whole is None:
        raise ValueError("a network has blocks to be priced")
    return _network_cost(whole, training, places, data, count)


def _sample_cost(training: Training, model: SampleModel, place: Place, data: int, count: int) -> StepCost:
    pricer, frac = place.pricer, place.pricer.stated_frac or model.efficiency_frac
    rate = pricer.device.peak(training.precision) * (1.0 if pricer.ideal else frac)
    per_device = training.plan.micro_batch * model.sample_flop / rate
    chunks = [[ChunkCost(per_device / 3, per_device * 2 / 3)]]
    if not model.parameters:
        return StepCost(chunks)
    held, layers = [model.parameters], [[1]]
    agreed = exchange(held, layers, training, pricer, count * per_device)
    update = _optimizer(held, layers, training, [place], data)
    return StepCost(
        chunks, 0.0, agreed.reduce_s, update, agreed.parameters_s, weights_s=agreed.weights_s, layers=layers
    )


def _network_cost(
    whole: Network, training: Training, places: Sequence[Place], data: int, count: int
) -> StepCost:
    plan = training.plan
    dealt = whole.chunks(plan)
    chunks = pass_costs(whole, training, places)
    held = [held_parameters(block for blocks in rank for block in blocks) for rank in dealt]
    layers = dealt_layers(len(whole.layers), plan)
    dense, experts = [one.dense for one in held], [one.experts for one in held]
    if plan.schedule == "dualpipe":  # each rank also holds the stage that mirrors its own
        chunks, layers = _mirrored(chunks), _mirrored(layers)
        dense, experts = _mirrored(dense), _mirrored(experts)
    passes_s = count * max(sum(map(pass_s, costs)) for costs in chunks)
    agreed = _exchange(dense, layers, training, places, passes_s, [one.frozen for one in held])
    update = _optimizer(dense, layers, training, places, data)
    still = [one.frozen_experts for one in held]
    if any(experts) or any(still):
        apart = replace(training, plan=replace(plan, shard_ranks=0))
        among = [
            replace(place, pricer=replace(place.pricer, groups=_among_experts(place.pricer)))
            for place in places
        ]
        agreed = agreed.plus(_exchange(experts, layers, apart, among, passes_s, still))
    if any(experts):
        shared = _optimizer(experts, layers, apart, places, plan.expert_replicas(data), experts=True)
        update = [a + b for a, b in zip(update, shared, strict=True)]
    return StepCost(
        chunks,
        _sends_s(whole, places),
        agreed.reduce_s,
        update,
        agreed.parameters_s,
        weights_s=agreed.weights_s,
        layers=layers,
    )


def pass_costs(whole: Network, training: Training, places: Sequence[Place]) -> list[list[ChunkCost]]:
    """Seconds of every chunk's passes, by rank: kernels and messages of the blocks it holds."""
    sent = training.plan.tensor if training.plan.overlap_tensor else 1
    priced: dict[str, dict[str, ChunkCost]] = {}
    for place in places:
        if place.pool.name not in priced:
            priced[place.pool.name] = {
                block.name: block_cost(block, place.pricer, place.extra, sent, training.plan.overlap_experts)
                for block in whole.kinds
            }
    share = training.plan.offload_activations
    chunks = []
    for place, rank in zip(places, whole.chunks(training.plan), strict=True):
        costs = [_sum_of([priced[place.pool.name][block.name] for block in blocks]) for blocks in rank]
        chunks.append(
            [
                replace(
                    cost,
                    forward_s=cost.forward_s + _cast_s(training, blocks, place),
                    forward_tensor_s=cost.forward_tensor_s + agree_s,
                    backward_tensor_s=cost.backward_tensor_s + agree_s,
                    offload_s=_copy_s(whole, blocks, share, place.pricer),
                )
                for cost, blocks in zip(costs, rank, strict=True)
                for agree_s in (_agree_s(training, blocks, place),)
            ]
        )
    return chunks


def _agree_s(training: Training, blocks: Sequence[Block], place: Place) -> float:
    """Seconds in which ranks agree on the scales of FP8 tensors at the end of a pass; see ``sim.training.scaling``."""
    if not delayed(training):
        return 0.0
    return place.pricer.seconds((maxima_message(sum(map(products, blocks))),))


def _cast_s(training: Training, blocks: Sequence[Block], place: Place) -> float:
    """Seconds in which autocast makes 16-bit copies of the blocks' weights: 4 bytes read and 2 written, at the
    bandwidth of a fused update. PyTorch keeps a cast weight until the pass through the model has ended (torch.autocast,
    cache_enabled), so this happens once a micro-batch.
    """
    if not training.autocast:
        return 0.0
    reached = place.pricer.stated_frac or place.extra.optimizer_bandwidth_frac
    size = (MASTER_BYTES + WEIGHT_BYTES) * held_parameters(blocks).total
    return size / (place.pricer.device.memory_bytes_per_s * (1.0 if place.pricer.ideal else reached))


def _copy_s(whole: Network, blocks: Sequence[Block], share: float, pricer: Pricer) -> float:
    """Seconds in which ``share`` of what the blocks keep for backward crosses the host link, one way.

    Copies of a layer run beside the next one (Rajbhandari et al. 2021, arXiv 2104.07857, section 5.1): a pass takes the
    longer of its kernels and its copies. The last layer's logits are used at once and stay.
    """
    size = share * sum(block.kept_bytes for block in blocks if block is not whole.last)
    if size <= 0:
        return 0.0
    return float(size / min(host_copies_bytes_per_s(pricer)))


def _sends_s(whole: Network, places: Sequence[Place]) -> float | list[float]:
    """Activation messages between stages: one time, or one a link where stages sit on unlike pools.

    A message between pools leaves the node on either side: the slower side decides.
    """
    send = Message("sendrecv", whole.boundary_bytes, "pipeline", "activations")
    if len({place.pool.name for place in places}) == 1:
        return float(places[0].pricer.price(send).seconds)
    links = []
    for here, there in zip(places, [*places[1:], places[0]], strict=True):
        inside = here.pool.name == there.pool.name
        sides = [place.pricer if inside else _outside(place.pricer) for place in (here, there)]
        links.append(max(float(pricer.price(send).seconds) for pricer in sides))
    return links


def _outside(pricer: Pricer) -> Pricer:
    """The same prices, with neighbours in the pipeline never in one scale-up domain."""
    own = pricer.groups["pipeline"]
    return replace(pricer, groups={**pricer.groups, "pipeline": replace(own, ranks_per_domain=1)})


def _among_experts(pricer: Pricer) -> dict[str, Group]:
    return {**pricer.groups, "data": pricer.groups["expert data"]}


def _exchange(
    held: Sequence[float],
    layers: Sequence[Sequence[int]],
    training: Training,
    places: Sequence[Place],
    compute_s: float,
    frozen: Sequence[float],
) -> Exchange:
    """The exchange of every rank at the prices of its own pool."""
    ranks = [
        exchange([own], [counts], training, place.pricer, compute_s, [still])
        for own, still, counts, place in zip(held, frozen, layers, places, strict=True)
    ]
    return Exchange(
        [times for rank in ranks for times in rank.reduce_s],
        [seconds for rank in ranks for seconds in rank.parameters_s],
        [times for rank in ranks for times in rank.weights_s],
    )


def _mirrored(by_rank: Sequence[Any]) -> list[Any]:
    """What each rank has together with what the rank at the other end has."""
    return [mine + other for mine, other in zip(by_rank, reversed(by_rank), strict=True)]


def pass_s(cost: ChunkCost) -> float:
    """Forward and backward of a chunk, messages included."""
    return cost.forward_s + cost.backward_s + cost.forward_tensor_s + cost.backward_tensor_s


def _optimizer(
    held: Sequence[float],
    layers: Sequence[Sequence[int]],
    training: Training,
    places: Sequence[Place],
    data: int,
    *,
    experts: bool = False,
) -> list[float]:
    seconds = []
    for own, counts, place in zip(held, layers, places, strict=True):
        share = place.pricer.stated_frac or place.extra.optimizer_bandwidth_frac
        seconds += optimizer_s([own], [sum(counts)], training, place.pricer, share, data, experts=experts)
    return seconds


def block_cost(
    block: Block, pricer: Pricer, extra: Overheads, chunks_sent: int, hide_experts: bool
) -> ChunkCost:
    forward, forward_messages = _split(block.forward)
    backward, backward_messages = _split(block.recompute + block.backward)
    kernels_s, weight_s = pricer.seconds(backward), pricer.seconds(filter(_weight_gradient, backward))
    backward_s = extra.block_s(kernels_s, len(backward))
    return ChunkCost(
        extra.block_s(pricer.seconds(forward), len(forward)),
        backward_s,
        _waited_s(forward_messages, forward, pricer, chunks_sent, hide_experts) * extra.message_factor,
        _waited_s(backward_messages, backward, pricer, chunks_sent, hide_experts) * extra.message_factor,
        backward_s * weight_s / kernels_s if kernels_s > 0 else 0.0,
    )


def _weight_gradient(op: Op) -> bool:
    """Whether only a weight waits for it; products of the attention core multiply two activations."""
    core = op.name.startswith(("scores", "context"))
    return isinstance(op, Gemm | Conv) and op.name.endswith(" wgrad") and not core


def _waited_s(
    messages: Sequence[Message], kernels: Sequence[Op], pricer: Pricer, chunks_sent: int, hide_experts: bool
) -> float:
    """Seconds of messages that nothing hides: all of one, or what outlasts the kernel it runs beside.

    Tensor messages in ``chunks_sent`` chunks (one a rank of the ring, as Transformer Engine sends them) leave the first
    chunk exposed, and what the products they run beside are too short for.
    """
    tensor = [message for message in messages if message.group == "tensor"]
    waited = pricer.seconds(tensor)
    if chunks_sent > 1:
        products_s = pricer.seconds(op for op in kernels if isinstance(op, Gemm))
        waited = max(waited / chunks_sent, waited - products_s)
    if hide_experts:  # another micro-batch's pass has as many kernels as this one
        sent = pricer.seconds(message for message in messages if message.group == "expert")
        waited += max(sent - pricer.seconds(kernels), 0.0)
    for message in messages:
        if message.group == "tensor" or (hide_experts and message.group == "expert"):
            continue
        hidden = [op for op in kernels if op.name == message.beside] if message.beside else []
        waited += max(pricer.seconds((message,)) - pricer.seconds(hidden), 0.0)
    return waited


def _split(ops: Sequence[Op]) -> tuple[list[Op], list[Message]]:
    return [op for op in ops if not isinstance(op, Message)], [op for op in ops if isinstance(op, Message)]


def _sum_of(costs: Sequence[ChunkCost]) -> ChunkCost:
    return ChunkCost(
        sum(cost.forward_s for cost in costs),
        sum(cost.backward_s for cost in costs),
        sum(cost.forward_tensor_s for cost in costs),
        sum(cost.backward_tensor_s for cost in costs),
        sum(cost.weight_s for cost in costs),
    )


def uses_of(whole: Network, place: Place, part: str = "") -> list[Use]:
    """How every kind of op was priced at a place; ``part`` names the pool or the task where there are several."""
    return [use for block in whole.kinds for use in _uses(block, place.pricer, part)]


def _uses(block: Block, pricer: Pricer, part: str) -> list[Use]:
    uses: dict[str, Use] = {}
    for op in block.forward + block.recompute + block.backward:
        found = pricer.price(op)
        name = f"{block.name}: {op.name}"
        use = Use(name, float(found.seconds), float(found.lower_bound_s), found.leans_on, found.fit, part)
        earlier = uses.get(name)
        if earlier is None:
            use = replace(use, roof=roof(op, found, pricer))
        else:
            use = replace(
                use,
                seconds=use.seconds + earlier.seconds,
                lower_bound_s=use.lower_bound_s + earlier.lower_bound_s,
                roof=earlier.roof,
            )
        uses[name] = use
    return list(uses.values())
