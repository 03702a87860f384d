"""One training step, from scenario to answer.

The stations are always the same: write down the work (``layers``), price it (``pricing``), order it (``program``),
play it (``engine``), keep the books (``results.timeline``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sim.cost.kernels.sustained import sustained_frac
from sim.results.step import MemoryUse, StepResult, Use
from sim.results.timeline import account
from sim.spec.checks import data_parallel, micro_batches
from sim.spec.ops import Block, Conv, Gemm, Message, Op
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.spec.workload import SampleModel, Training
from sim.training.contention import Contention
from sim.training.data_parallel import buckets, exchange, gathers_once, overlaps
from sim.training.engine import play
from sim.training.layers import Network, layers_by_rank, network
from sim.training.loading import serial_s, step_wait_s, with_wait
from sim.training.memory import memory_use
from sim.training.overheads import Overheads, overheads
from sim.training.placement import groups
from sim.training.pricing import Group, Pricer
from sim.training.program import ChunkCost, Options, StepCost, build
from sim.training.run_phases import run_result
from sim.training.stragglers import straggler_wait_s
from sim.training.system_links import system_links
from sim.training.update import optimizer_s
from sim.training.weights import held_parameters


def predict_step(scenario: Scenario, fits: Sequence[Fit]) -> StepResult:
    """Simulate one step of the scenario's training job.

    Raises:
        ValueError: the scenario has no training section.
    """
    training = scenario.training
    if training is None:
        raise ValueError("the scenario has no [training] section")
    pool = scenario.cluster.pools[0]
    data, count = data_parallel(scenario.cluster, training), micro_batches(scenario.cluster, training)
    copies = data * (2 if training.plan.schedule == "dualpipe" else 1)  # ranks that hold the same weights
    device = pool.accelerator.device()
    links = system_links(pool.system, pool.accelerator, scenario.cluster.fabric)
    talking = groups(training.plan, data, int(links.scale_up_ranks), int(links.devices_per_node))
    for name in ("data", "expert data"):
        talking[name] = replace(talking[name], ranks=talking[name].ranks * copies // data)
    pricer = Pricer(
        device,
        links,
        fits,
        training.precision,
        talking,
        ideal=scenario.profile == "ideal",
        engines=TRAINING_ENGINES,
        sustained_frac=sustained_frac(
            device.generation, pool.accelerator.tdp_w, device.flop_per_s.get("bf16", 0.0)
        ),
    )
    extra = overheads(fits, training.stack, device.generation, training.precision, ideal=pricer.ideal)
    options = Options(
        training.plan.pipeline,
        count,
        training.plan.virtual_stages,
        training.plan.schedule,
        overlaps(training.plan),
        training.plan.overlap_pipeline,
        overlap_weights=training.plan.overlap_weights or gathers_once(training.plan),
        gather_once=gathers_once(training.plan),
        gradient_buckets=_buckets(training),
        prefetch=training.loader.prefetch if training.loader else 0,
        contention=Contention(
            training.plan.share_network
            and all(_leaves_domain(talking[name]) for name in ("pipeline", "data")),
            training.plan.overlap_slowdown_frac,
        ),
    )
    uses: tuple[Use, ...] = ()
    memory: tuple[MemoryUse, ...] = ()
    if isinstance(training.model, SampleModel):
        cost = _sample_cost(training, training.model, pricer, extra, data, count)
    else:
        whole = network(training.model, training)
        replicas = copies * training.plan.context  # context ranks hold the same weights
        cost, uses = _transformer_cost(whole, training, pricer, extra, replicas, count)
        memory = memory_use(whole, training, count, replicas, device.memory_bytes)
    cost = replace(cost, load_s=serial_s(training, data), straggler_s=_straggler_s(scenario, cost, count))
    timeline = play(build(cost, options))
    wait_s = step_wait_s(training, scenario.cluster, data, timeline.step_s)
    if wait_s > 0:
        timeline = play(build(*with_wait(cost, options, wait_s)))
    parts_s = account(timeline)
    run = run_result(training, scenario.cluster, data, timeline.step_s, parts_s)
    return StepResult(scenario, timeline, parts_s, memory, data, count, uses, extra.constants, run)


def _straggler_s(scenario: Scenario, cost: StepCost, count: int) -> float:
    """How much later the slowest copy ends its passes than the one that is played."""
    training = scenario.training
    assert training is not None  # predict_step checked it
    passes = count / 2 if training.plan.schedule == "dualpipe" else count  # half of them in each direction
    compute_s = passes * max(
        sum(chunk.forward_s + chunk.backward_s for chunk in rank) for rank in cost.chunks
    )
    spreads = (training.speed_spread_frac, training.jitter_frac)
    return float(straggler_wait_s(compute_s, scenario.cluster.devices, count, *spreads))


def _leaves_domain(group: Group) -> bool:
    return group.ranks > group.ranks_per_domain


TRAINING_ENGINES = {"gemm": "transformer-engine", "attention": "cudnn", "memory_bound": "torch_compile"}
"""Backends a training framework calls; a profile without them lends its nearest."""


def _buckets(training: Training) -> int:
    """Gradient messages a chunk; chunks that differ by a layer are cut alike."""
    plan, model = training.plan, training.model
    layers = 1 if isinstance(model, SampleModel) else model.layers // (plan.pipeline * plan.virtual_stages)
    return buckets(plan, layers)


def _sample_cost(
    training: Training, model: SampleModel, pricer: Pricer, extra: Overheads, data: int, count: int
) -> StepCost:
    rate = pricer.device.peak(training.precision) * (1.0 if pricer.ideal else model.efficiency_frac)
    per_device = training.plan.micro_batch * model.sample_flop / rate
    chunks = [[ChunkCost(per_device / 3, per_device * 2 / 3)]]
    if not model.parameters:
        return StepCost(chunks)
    held, layers = [model.parameters], [[1]]
    agreed = exchange(held, layers, training, pricer, count * per_device)
    update = _optimizer(held, layers, training, pricer, extra, data)
    return StepCost(
        chunks, 0.0, agreed.reduce_s, update, agreed.parameters_s, weights_s=agreed.weights_s, layers=layers
    )


def _transformer_cost(
    model: Network, training: Training, pricer: Pricer, extra: Overheads, data: int, count: int
) -> tuple[StepCost, tuple[Use, ...]]:
    plan = training.plan
    chunks_sent = plan.tensor if plan.overlap_tensor else 1
    priced = {
        block.name: _block_cost(block, pricer, extra, chunks_sent, plan.overlap_experts)
        for block in model.kinds
    }
    dealt = model.chunks(plan)
    chunks = [[_sum_of([priced[block.name] for block in blocks]) for blocks in rank] for rank in dealt]
    held = [held_parameters(block for blocks in rank for block in blocks) for rank in dealt]
    layers = layers_by_rank(len(model.layers), plan.pipeline, plan.virtual_stages)
    dense, experts = [one.dense for one in held], [one.experts for one in held]
    if plan.schedule == "dualpipe":  # each rank also holds the stage that mirrors its own
        chunks, layers = _mirrored(chunks), _mirrored(layers)
        dense, experts = _mirrored(dense), _mirrored(experts)
    passes_s = count * max(sum(map(_pass_s, costs)) for costs in chunks)
    agreed = exchange(dense, layers, training, pricer, passes_s)
    update = _optimizer(dense, layers, training, pricer, extra, data)
    if any(experts):
        apart = replace(training, plan=replace(plan, shard_ranks=0))
        among = replace(pricer, groups={**pricer.groups, "data": pricer.groups["expert data"]})
        agreed = agreed.plus(exchange(experts, layers, apart, among, passes_s))
        shared = _optimizer(experts, layers, apart, pricer, extra, plan.expert_replicas(data))
        update = [a + b for a, b in zip(update, shared, strict=True)]
    send = Message("sendrecv", model.boundary_bytes, "pipeline", "activations")
    whole = StepCost(
        chunks,
        float(pricer.price(send).seconds),
        agreed.reduce_s,
        update,
        agreed.parameters_s,
        weights_s=agreed.weights_s,
        layers=layers,
    )
    uses = tuple(use for block in model.kinds for use in _uses(block, pricer))
    return whole, uses


def _mirrored(by_rank: Sequence[Any]) -> list[Any]:
    """What each rank has together with what the rank at the other end has."""
    return [mine + other for mine, other in zip(by_rank, reversed(by_rank), strict=True)]


def _pass_s(cost: ChunkCost) -> float:
    return cost.forward_s + cost.backward_s + cost.forward_tensor_s + cost.backward_tensor_s


def _optimizer(
    held: Sequence[float],
    layers: Sequence[Sequence[int]],
    training: Training,
    pricer: Pricer,
    extra: Overheads,
    data: int,
) -> list[float]:
    counts = [sum(rank) for rank in layers]
    return optimizer_s(held, counts, training, pricer, extra.optimizer_bandwidth_frac, data)


def _block_cost(
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


def _uses(block: Block, pricer: Pricer) -> list[Use]:
    uses: dict[str, Use] = {}
    for op in block.forward + block.recompute + block.backward:
        found = pricer.price(op)
        name = f"{block.name}: {op.name}"
        use = Use(name, float(found.seconds), float(found.lower_bound_s), found.leans_on, found.fit)
        earlier = uses.get(name)
        if earlier is not None:
            use = replace(
                use,
                seconds=use.seconds + earlier.seconds,
                lower_bound_s=use.lower_bound_s + earlier.lower_bound_s,
            )
        uses[name] = use
    return list(uses.values())
